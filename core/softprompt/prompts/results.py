"""What is measured of a soft prompt: its readout, hard readout and fidelity in contexts."""

from __future__ import annotations

from dataclasses import dataclass


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
class ContextScore:
    """One context: similarity of the composition to the sentence written out, and the floor: the hard prompt alone to it."""

    context: str
    similarity: float
    floor: float


@dataclass(frozen=True)
class ContextFidelity:
    """Composition fidelity over contexts that were not trained in."""

    contexts: tuple[ContextScore, ...]

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
