"""Frozen models: the catalog, downloading, loading, and one folder per model family."""
