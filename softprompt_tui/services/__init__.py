"""The connections to the world outside the interface: the worker, subprocess commands, the clipboard."""
