"""The soft prompt as data: numpy, no torch."""
