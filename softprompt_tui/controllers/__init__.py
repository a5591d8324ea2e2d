"""What the keys and the worker set in motion: each controller sees to one thing, and tells by messages what has changed."""
