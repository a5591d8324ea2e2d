"""The machine: folders, files, locks, priority and threads. Nothing here knows about soft prompts."""
