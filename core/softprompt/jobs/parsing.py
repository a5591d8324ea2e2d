"""Spellings of yes, no and lists in batch files and in the app's fields."""

from __future__ import annotations

YES_WORDS, NO_WORDS = ("yes", "y", "on", "1", "true"), ("no", "n", "off", "0", "false", "none")
LIST_SEPARATOR = "|"


def split_list(text: str) -> tuple[str, ...]:
    """Split a string at `|` and drop blank parts."""
    return tuple(item for part in text.split(LIST_SEPARATOR) if (item := part.strip()))
