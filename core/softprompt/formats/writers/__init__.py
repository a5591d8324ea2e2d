"""Write soft prompts in the file formats of other programs."""
