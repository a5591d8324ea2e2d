"""CLIP's text encoders."""
