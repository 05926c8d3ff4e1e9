"""From notebooks to pages: start and end of a chapter, provenance, the sphinx extension."""
