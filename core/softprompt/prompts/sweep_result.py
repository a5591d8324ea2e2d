"""Results of a sweep. A separate module, because the app's first paint needs only these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class SweepResult:
    """The result for one token count. Values not yet known are None."""

    tokens: int
    similarity: float | None = None
    composed: float | None = None  # the mean composition fidelity
    worst: float | None = None
    floor: float | None = None  # mean floor of the contexts
    readout_text: str | None = None
    readout_similarity: float | None = None
    knee: bool = False
    kl: float | None = None  # of a language model, on held-out questions
    kl_share: float | None = None  # of the floor's KL

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SweepResult:
        """Create a result from validated values. Unknown keys are ignored."""
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})
