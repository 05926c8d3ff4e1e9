"""Lines, squares, intervals, schemes and tables, as inline SVG and HTML."""
