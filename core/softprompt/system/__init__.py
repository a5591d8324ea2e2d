"""The machine: folders, files, locks, priority and threads. Nothing here knows soft prompts."""
