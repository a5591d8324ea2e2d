"""The soft prompt as data. Needs numpy, but not torch."""
