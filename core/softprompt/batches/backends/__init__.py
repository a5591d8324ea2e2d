"""Where a batch is trained."""
