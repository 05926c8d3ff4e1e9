"""What every room may use: errors in words, atomic files, progress, the processes of a launch."""
