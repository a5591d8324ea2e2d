"""Gradient descent on a few input embeddings of a frozen model."""
