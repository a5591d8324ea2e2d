"""Frozen models that read embedded tokens: the list of them, loading, and a folder for each family."""
