"""Convert what people pass for a soft prompt, its vectors or weighted texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from softprompt.argument_types import describe, plain_number
from softprompt.errors import ArgumentError, PromptError, how_to_assign_prompt
from softprompt.library.entry import Entry
from softprompt.prompts.lineage import MAX_WEIGHTED_TEXTS, WeightedText
from softprompt.prompts.soft_prompt import SoftPrompt

MAX_WEIGHT = 1e9
_SUM_TOLERANCE = 1e-6  # weights this close to a sum of 1 stay as they are, so that saved ones keep their bits


def as_soft_prompt(value: SoftPrompt | Entry) -> SoftPrompt:
    """Return the soft prompt of an entry, or the soft prompt itself."""
    return value.prompt if isinstance(value, Entry) else value


def check_meaning_is_known(prompt: SoftPrompt) -> None:
    """Raise PromptError if the hard prompt of an imported soft prompt is unknown."""
    if not prompt.reference_texts:
        raise PromptError(
            f"the hard prompt of {prompt.name or 'the soft prompt'} is unknown, because its file does not contain it. "
            f"Set it with {how_to_assign_prompt(prompt.name)}."
        )


def as_weighted_texts(name: str, value: Iterable[Any]) -> tuple[WeightedText, ...]:
    """Return weighted texts, whose weights sum to 1, from pairs of a text and its weight.

    Raises:
        ArgumentError: an item is no such pair, or a weight is not positive.
    """
    texts: list[WeightedText] = []
    for item in value.items() if isinstance(value, Mapping) else value:
        if len(texts) == MAX_WEIGHTED_TEXTS:  # a file cannot hold more, and the items may be endless
            raise ArgumentError(
                f"{name} has more than {MAX_WEIGHTED_TEXTS} items; expected at most {MAX_WEIGHTED_TEXTS}"
            )
        text, share = (
            (item.text, item.share)
            if isinstance(item, WeightedText)
            else item
            if isinstance(item, tuple | list) and len(item) == 2
            else (None, None)
        )
        share = plain_number(share) if not isinstance(share, bool) else None
        if not isinstance(text, str) or not isinstance(share, int | float) or not 0 < share <= MAX_WEIGHT:
            raise ArgumentError(
                f"{name} contains {describe(item)}; expected texts with positive weights, such as "
                "[('a lake', 0.6), ('a fox', 0.4)]"
            )
        texts.append(WeightedText(text, float(share)))
    total = sum(text.share for text in texts)
    if abs(total - 1) <= _SUM_TOLERANCE:
        return tuple(texts)
    return tuple(WeightedText(text.text, text.share / total) for text in texts)
