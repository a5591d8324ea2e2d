"""Soft prompts in the files of other programs: reading them, writing them, and never running what is in them."""
