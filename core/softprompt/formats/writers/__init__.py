"""Soft prompts written as files for other programs."""
