"""Jobs: their specification, the checks before they run, and how they run."""
