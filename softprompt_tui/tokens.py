"""How many of a model's tokens a text takes, without torch: for the count beside the editor."""

from __future__ import annotations

from dataclasses import dataclass

from softprompt.errors import PromptError
from softprompt.room import AROUND, clip_tokenizer, known_model


@dataclass(frozen=True)
class Count:
    """`tokens` with start and end, of `context`; what is behind the character `cut` would not be read, None where all is."""

    tokens: int
    context: int
    cut: int | None


def count(text: str, model: str) -> Count | None:
    """The count for a model with CLIP's own tokenizer; None for others, and for a text too long to count. Takes 0.1 s the first time."""
    info = known_model(model)
    if info is None:
        return None
    try:
        tokens = len(clip_tokenizer().encode(text)) + AROUND
        return Count(tokens, info.context, None if tokens <= info.context else _cut(text, info.context - AROUND))
    except PromptError:
        return None


def _cut(text: str, room: int) -> int:
    """The longest beginning of the text that fits, in characters."""
    fits, over = 0, len(text)
    while over - fits > 1:
        middle = (fits + over) // 2
        if len(clip_tokenizer().encode(text[:middle])) <= room:
            fits = middle
        else:
            over = middle
    return fits
