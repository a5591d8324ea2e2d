"""The state of the interface: runs, queue, curves, settings and draft. Nothing here depends on Textual."""
