"""The weighted texts and ancestors of a soft prompt. Needs no numpy, because jobs use it too."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from softprompt.arguments import checked_fields, convert_fields
from softprompt.errors import ArgumentError, PromptError
from softprompt.prompts.validation import parse_number

MAX_WEIGHTED_TEXTS = 64  # texts that one soft prompt can be trained on
RELATIONS = ("mixed", "composed", "ported")
# characters: the most that can be tokenized; as JSON, they fit into one line of the worker protocol
MAX_PROMPT_LENGTH = 200_000


@checked_fields
@dataclass(frozen=True)
class WeightedText:
    """One text of a mix and its weight (`share`)."""

    text: str
    share: float

    def __post_init__(self) -> None:
        convert_fields(self)
        if not 0 < self.share < math.inf:
            raise ArgumentError(f"WeightedText.share is {self.share}; expected a number greater than 0")


@checked_fields
@dataclass(frozen=True)
class Ancestor:
    """A soft prompt from which another soft prompt was made, as it was at that time.

    Attributes:
        relation: the ancestor's role: "mixed" (a term of the mix that was trained), "composed" (a word of the
            composition that was trained) or "ported" (the same prompt on another model).
        weight: the ancestor's weight in the mix.
    """

    relation: str
    id: str
    name: str
    hard_prompt: str
    model: str
    model_fingerprint: str
    weight: float = 1.0

    def __post_init__(self) -> None:
        convert_fields(self)


def meanings_from_dicts(values: Any) -> tuple[WeightedText, ...]:
    """Create weighted texts from JSON values. Raises KeyError, TypeError or ValueError for invalid values."""
    meanings = tuple(WeightedText(str(value["text"]), parse_number(value["share"])) for value in values)
    if not all(0 < meaning.share <= 1 for meaning in meanings):
        raise ValueError("a weight must be greater than 0 and at most 1")
    return meanings


def ancestor_from_dict(values: dict[str, Any]) -> Ancestor:
    """Create an ancestor from JSON values. Raises KeyError, TypeError or ValueError for invalid values."""
    texts = {key: str(values[key]) for key in ("relation", "id", "name", "hard_prompt", "model", "model_fingerprint")}
    if texts["relation"] not in RELATIONS:
        raise ValueError(
            f"an ancestor's relation is {texts['relation'][:40]!r}; it must be one of: {', '.join(RELATIONS)}"
        )
    return Ancestor(**texts, weight=parse_number(values["weight"]))


def check_meanings(prompt: str, meanings: tuple[WeightedText, ...]) -> None:
    """Raise PromptError if a prompt has too many texts to train on, or too many characters."""
    if len(meanings) > MAX_WEIGHTED_TEXTS:
        raise PromptError(
            f"the prompt expands to {len(meanings):,} sentences, one for each combination of terms in its mixes; "
            f"at most {MAX_WEIGHTED_TEXTS} can be compared or trained on. Use fewer or smaller mixes."
        )
    characters = max(len(prompt), sum(len(meaning.text) for meaning in meanings))
    if characters > MAX_PROMPT_LENGTH:
        raise PromptError(
            f"the prompt has {characters:,} characters; at most {MAX_PROMPT_LENGTH:,} are allowed. Shorten it."
        )
