"""What tells two soft prompts apart: how they were made, and token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softprompt.prompts.serialization import to_dict
from softprompt.prompts.soft_prompt import Array

if TYPE_CHECKING:
    from softprompt.library.entry import Entry

_ELSEWHERE = ("readout", "warnings", "steps_per_second")  # shown token by token, or follows from the rest


@dataclass(frozen=True)
class Difference:
    """`fields`: name -> (first, second) of all that differs in their making. `hard_prompts`: cosine of their targets, None where the
    models are not the same or one is not known, or a target is not. `cosines`: (k1, k2) of each soft token of the first with each of the second, or None."""

    fields: dict[str, tuple[Any, Any]]
    hard_prompts: float | None
    cosines: Array | None

    def closest(self) -> list[tuple[int, float]]:
        """For each soft token of the first the nearest of the second, as (number from 0, cosine)."""
        if self.cosines is None:
            return []
        return [(int(row.argmax()), float(row.max())) for row in self.cosines]


def difference(a: Entry, b: Entry) -> Difference:
    """Compares two entries; needs no model."""
    first, second = _facts(a), _facts(b)
    fields = {key: (first.get(key), second.get(key)) for key in first | second if first.get(key) != second.get(key)}
    one, two = a.prompt, b.prompt
    same_model = one.model_fingerprint and one.model_fingerprint == two.model_fingerprint
    if not same_model or one.vectors.shape[1] != two.vectors.shape[1]:
        return Difference(fields, None, None)
    known = one.target.size and one.target.shape == two.target.shape
    hard_prompts = float(np.clip(one.target @ two.target, -1, 1)) if known else None
    return Difference(fields, hard_prompts, _unit(one.vectors) @ _unit(two.vectors).T)


def _facts(entry: Entry) -> dict[str, Any]:
    facts = {key: value for key, value in to_dict(entry.prompt).items() if key not in _ELSEWHERE}
    composition = facts.pop("composition") or {}
    facts |= {"composed": composition.get("mean"), "composed, worst": composition.get("worst")}
    for group in ("config", "versions", "source"):
        facts |= {f"{group}: {key}": value for key, value in facts.pop(group).items()}
    return facts | {"tags": list(entry.tags), "note": entry.note}


def _unit(vectors: Array) -> Array:
    lengths = np.linalg.norm(
        vectors.astype(np.float64), axis=1, keepdims=True
    )  # in float32 those of a file may be infinite
    unit: Array = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
