"""Compare two soft prompts: their provenance, targets and soft tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from softprompt.prompts.values import Array, ComparedByValue

if TYPE_CHECKING:
    from softprompt.library.entry import Entry

_SKIPPED = ("readout", "warnings", "steps_per_second")  # shown per token, or derived from other fields


@dataclass(frozen=True, eq=False)
class Difference(ComparedByValue):
    """The difference between two soft prompts.

    Attributes:
        fields: both values of every provenance field that differs, by field name.
        target_similarity: cosine of the two targets, or None if a target or model is unknown or the models differ.
        cosines: (k1, k2) cosines between the soft tokens, or None if the models differ or are unknown.
    """

    fields: dict[str, tuple[Any, Any]]
    target_similarity: float | None
    cosines: Array | None

    _hashed = ()  # none of the fields is cheap to hash

    def nearest_tokens(self) -> list[tuple[int, float]]:
        """Return the nearest soft token of the second prompt for each of the first, as an index and a cosine."""
        if self.cosines is None:
            return []
        return [(int(row.argmax()), float(row.max())) for row in self.cosines]


def compare_entries(a: Entry, b: Entry) -> Difference:
    """Compare two entries without loading a model."""
    first, second = _flatten_provenance(a), _flatten_provenance(b)
    fields = {key: (first.get(key), second.get(key)) for key in first | second if first.get(key) != second.get(key)}
    prompt_a, prompt_b = a.prompt, b.prompt
    same_model = prompt_a.model_fingerprint and prompt_a.model_fingerprint == prompt_b.model_fingerprint
    if not same_model or prompt_a.vectors.shape[1] != prompt_b.vectors.shape[1]:
        return Difference(fields, None, None)
    has_targets = prompt_a.target.size and prompt_a.target.shape == prompt_b.target.shape
    target_similarity = float(np.clip(prompt_a.target @ prompt_b.target, -1, 1)) if has_targets else None
    return Difference(fields, target_similarity, _unit(prompt_a.vectors) @ _unit(prompt_b.vectors).T)


def _flatten_provenance(entry: Entry) -> dict[str, Any]:
    facts = {key: value for key, value in entry.prompt.as_dict().items() if key not in _SKIPPED}
    composition = facts.pop("composition") or {}
    facts |= {"composed": composition.get("mean"), "composed, worst": composition.get("worst")}
    for group in ("config", "versions", "source"):
        facts |= {f"{group}: {key}": value for key, value in facts.pop(group).items()}
    return facts | {"tags": list(entry.tags), "note": entry.note}


def _unit(vectors: Array) -> Array:
    # float64: in float32 the norm of an imported vector can overflow
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    unit: Array = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
    return unit
