"""What a soft prompt means and was made from, where that is more than one hard prompt. Needs no numpy: jobs hold it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from softprompt.errors import PromptError
from softprompt.prompts.validation import number

MAX_WEIGHTED_TEXTS = 64  # texts that a soft prompt is trained on together
RELATIONS = ("mixed", "composed", "ported")
MAX_PROMPT_LENGTH = 200_000  # characters: as many as can be tokenised; as JSON they fit into a line of the worker's


@dataclass(frozen=True)
class WeightedText:
    """One of the texts whose meanings a soft prompt has together, and its share: what a mix is, written out."""

    text: str
    share: float


@dataclass(frozen=True)
class Ancestor:
    """A soft prompt that another was made from: its id and name then, its hard prompt, its model, and its share of the meaning.

    `relation` says how: mixed (trained on weighted meanings), composed (a word of the composition it was trained on), ported (the
    same hard prompt on another model).
    """

    relation: str
    id: str
    name: str
    hard_prompt: str
    model: str
    model_fingerprint: str
    weight: float = 1.0


def meanings_of(values: Any) -> tuple[WeightedText, ...]:
    """From plain values; raises KeyError, TypeError or ValueError for others."""
    made = tuple(WeightedText(str(one["text"]), number(one["share"])) for one in values)
    if not all(0 < one.share <= 1 for one in made):
        raise ValueError("a share is over 0 and at most 1")
    return made


def ancestor_of(values: dict[str, Any]) -> Ancestor:
    """From plain values; raises KeyError, TypeError or ValueError for others."""
    texts = {key: str(values[key]) for key in ("relation", "id", "name", "hard_prompt", "model", "model_fingerprint")}
    if texts["relation"] not in RELATIONS:
        raise ValueError(f"an ancestor is {texts['relation'][:40]!r}; it can be {', '.join(RELATIONS)}")
    return Ancestor(**texts, weight=number(values["weight"]))


def check_meanings(prompt: str, meanings: tuple[WeightedText, ...]) -> None:
    """Raises PromptError for more texts than can be trained on, or longer ones."""
    if len(meanings) > MAX_WEIGHTED_TEXTS:
        raise PromptError(
            f"this means {len(meanings):,} sentences together, one for each choice of its mixes' terms; at most {MAX_WEIGHTED_TEXTS} "
            "can be compared or trained on: mix fewer"
        )
    characters = max(len(prompt), sum(len(one.text) for one in meanings))
    if characters > MAX_PROMPT_LENGTH:
        raise PromptError(f"the prompt has {characters:,} characters; at most {MAX_PROMPT_LENGTH:,} are read")
