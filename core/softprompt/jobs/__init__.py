"""Jobs: specification, preflight checks and execution."""
