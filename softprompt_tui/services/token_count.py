"""How many of a model's tokens a text takes, without torch: for the count beside the editor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from softprompt.errors import PromptError
from softprompt.jobs.preflight import AROUND, clip_tokenizer, known_model


@dataclass(frozen=True)
class Count:
    """A prompt's tokens, start and end included, of `context`.

    The model does not read what stands behind the character `cut`; None where it reads all. `reserved` is the special
    token that the text spells there, "" where the text is only too long.
    """

    tokens: int
    context: int
    cut: int | None
    reserved: str = ""


def count(text: str, model: str) -> Count | None:
    """The count for a model with CLIP's own tokenizer; None for others, and for a text too long to count. Takes 0.1 s the first time."""
    info = known_model(model)
    if info is None:
        return None
    tokenizer, room = clip_tokenizer(), info.context - AROUND
    try:
        ids = tokenizer.encode(text)
        if reserved := next((i for i in ids if i in tokenizer.reserved_ids), None):
            cut = _longest_beginning(text, lambda part: tokenizer.reserved_ids.isdisjoint(tokenizer.encode(part)))
            return Count(len(ids) + AROUND, info.context, cut, tokenizer.piece(reserved))
        if len(ids) > room:
            cut = _longest_beginning(text, lambda part: len(tokenizer.encode(part)) <= room)
            return Count(len(ids) + AROUND, info.context, cut)
        return Count(len(ids) + AROUND, info.context, None)
    except PromptError:
        return None


def _longest_beginning(text: str, is_read: Callable[[str], bool]) -> int:
    """The length of the longest beginning of the text that is read, in characters."""
    fits, over = 0, len(text)
    while over - fits > 1:
        middle = (fits + over) // 2
        if is_read(text[:middle]):
            fits = middle
        else:
            over = middle
    return fits
