"""Measure trained vectors and find the words nearest to them."""
