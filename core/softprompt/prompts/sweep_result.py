"""What a sweep comes to. Apart from the other results, since the interface needs no more of them for its first paint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class SweepResult:
    """What one number of soft tokens came to; what is not known, or not yet, is None."""

    tokens: int
    similarity: float | None = None
    composed: float | None = None  # the mean composition fidelity
    worst: float | None = None
    floor: float | None = None  # of the composition without the prompt's words
    readout_text: str | None = None
    readout_similarity: float | None = None
    knee: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SweepResult:
        """The result in plain values that are checked; others among them are passed over."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
