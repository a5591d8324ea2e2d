"""Count the tokens of the text in the editor, without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from softprompt.errors import PromptError
from softprompt.jobs.preflight import SPECIAL_TOKEN_COUNT, clip_tokenizer, known_model


@dataclass(frozen=True)
class TokenCount:
    """The token count of a prompt, including the start and end tokens.

    The model uses the first `cut_at` characters of the text, or all of it if that is None. `reserved` is the special
    token spelled out at that place, or "" if the text is merely too long.
    """

    tokens: int
    context_length: int
    cut_at: int | None
    reserved: str = ""


def count_tokens(text: str, model: str) -> TokenCount | None:
    """Count the tokens of a text, if the model uses CLIP's own tokenizer. The first call takes 0.1 s.

    Returns:
        The count, or None for other models and for text that is too long to count.
    """
    info = known_model(model)
    if info is None:
        return None
    tokenizer, max_tokens = clip_tokenizer(), info.context - SPECIAL_TOKEN_COUNT
    try:
        ids = tokenizer.encode(text)
        if reserved := next((token for token in ids if token in tokenizer.reserved_ids), None):
            cut = _longest_prefix(text, lambda part: tokenizer.reserved_ids.isdisjoint(tokenizer.encode(part)))
            return TokenCount(len(ids) + SPECIAL_TOKEN_COUNT, info.context, cut, tokenizer.piece(reserved))
        if len(ids) > max_tokens:
            cut = _longest_prefix(text, lambda part: len(tokenizer.encode(part)) <= max_tokens)
            return TokenCount(len(ids) + SPECIAL_TOKEN_COUNT, info.context, cut)
        return TokenCount(len(ids) + SPECIAL_TOKEN_COUNT, info.context, None)
    except PromptError:
        return None


def _longest_prefix(text: str, fits: Callable[[str], bool]) -> int:
    """Return the length in characters of the longest prefix that fits."""
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        if fits(text[:middle]):
            low = middle
        else:
            high = middle
    return low
