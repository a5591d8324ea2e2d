"""What is measured of a soft prompt: its readout, hard readout and fidelity in contexts, and what a sweep comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Neighbour:
    """A vocabulary token near a soft token, and their cosine."""

    token: str
    cosine: float


@dataclass(frozen=True)
class ReadoutToken:
    """One soft token's nearest vocabulary token, and the next ones."""

    token: str
    cosine: float
    alternatives: tuple[Neighbour, ...]


@dataclass(frozen=True)
class HardReadout:
    """Real tokens whose typed text means the hard prompt: gibberish that can be pasted anywhere.

    `similarity` is that of `text`, tokenised again into `tokens` tokens; `composed` its mean composition fidelity, None where no context
    has room. `evaluated` counts the texts that were scored.
    """

    text: str
    tokens: int
    similarity: float
    composed: float | None
    method: str
    evaluated: int
    seconds: float


@dataclass(frozen=True)
class ContextGrade:
    """One context: similarity of the composition to the sentence written out, and the floor: the hard prompt alone to it."""

    context: str
    similarity: float
    floor: float


@dataclass(frozen=True)
class Composition:
    """Composition fidelity over contexts that were not trained in."""

    contexts: tuple[ContextGrade, ...]

    def __post_init__(self) -> None:
        if not self.contexts:
            raise ValueError("a composition without contexts")

    @property
    def mean(self) -> float:
        return _mean([grade.similarity for grade in self.contexts])

    @property
    def worst(self) -> float:
        return min(grade.similarity for grade in self.contexts)

    @property
    def floor(self) -> float:
        return _mean([grade.floor for grade in self.contexts])


def _mean(values: list[float]) -> float:
    import numpy as np  # who only lists runs does without

    return float(np.mean(values))


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
