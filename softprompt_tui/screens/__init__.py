"""What lies over the panes for a moment, one a file."""
