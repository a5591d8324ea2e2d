"""Connections to the world outside the interface: the worker, subprocess commands and the clipboard."""
