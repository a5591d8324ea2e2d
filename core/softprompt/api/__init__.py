"""The public functions: they check arguments, accept what people type, show progress, and call the engine.

`softprompt` itself exports them. The command line and the worker call the engine's modules directly.
"""
