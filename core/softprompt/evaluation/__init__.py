"""Measure trained vectors, and read them as words."""
