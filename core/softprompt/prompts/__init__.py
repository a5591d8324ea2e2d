"""The data model of soft prompts. Needs numpy, but not torch."""
