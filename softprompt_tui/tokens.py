"""How many of a model's tokens a text takes, without torch: for the count beside the editor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from softprompt.catalogue import MINI, is_kept, list_models
from softprompt.errors import PromptError
from softprompt.text import Tokenizer


@dataclass(frozen=True)
class Count:
    """`tokens` with start and end, of `context`; what is behind the character `cut` would not be read, None where all is."""

    tokens: int
    context: int
    cut: int | None


def count(text: str, model: str) -> Count | None:
    """The count for a model with CLIP's own tokenizer; None for others, and for a text too long to count. Takes 0.1 s the first time."""
    context = _context(model)
    if context is None:
        return None
    try:
        tokens = len(_tokenizer().encode(text)) + 2
        return Count(tokens, context, None if tokens <= context else _cut(text, context - 2))
    except PromptError:
        return None


def _cut(text: str, room: int) -> int:
    """The longest beginning of the text that fits, in characters."""
    fits, over = 0, len(text)
    while over - fits > 1:
        middle = (fits + over) // 2
        if len(_tokenizer().encode(text[:middle])) <= room:
            fits = middle
        else:
            over = middle
    return fits


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    return Tokenizer()


def _context(model: str) -> int | None:
    if not is_kept():  # the list would have to be read from open_clip, which takes 5-8 s
        return 77 if model.lower() == MINI else None
    found = next((info for info in list_models() if info.name.lower() == model.lower()), None)
    return found.context if found and not found.tokenizer and not found.refused else None
