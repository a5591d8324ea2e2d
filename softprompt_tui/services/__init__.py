"""What is done elsewhere: the worker, the commands that run beside, the clipboard."""
