"""Prompts in which soft prompts are words: `[landscape*.6 + fox*.4] at night`."""
