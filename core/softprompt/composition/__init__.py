"""Compositions: prompts with soft prompts as words, such as `[landscape*.6 + fox*.4] at night`."""
