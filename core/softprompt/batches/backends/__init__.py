"""Backends that train a batch."""
