"""How people write yes, no, and several texts in one place: in a cell of a batch's file, in a field of the interface."""

from __future__ import annotations

YES, NO = ("yes", "y", "on", "1", "true"), ("no", "n", "off", "0", "false", "none")
BETWEEN = "|"


def split_list(text: str) -> tuple[str, ...]:
    """The texts between the bars, without blank ones."""
    return tuple(one for part in text.split(BETWEEN) if (one := part.strip()))
