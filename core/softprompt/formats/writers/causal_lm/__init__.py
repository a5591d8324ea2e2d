"""Write soft prompts of causal language models for other programs."""
