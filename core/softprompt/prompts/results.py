"""Measurements of a soft prompt: its readout, hard readout and fidelity in contexts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Neighbour:
    """A vocabulary token near a soft token, with their cosine."""

    token: str
    cosine: float


@dataclass(frozen=True)
class ReadoutToken:
    """The nearest vocabulary token of one soft token, and the next nearest as alternatives."""

    token: str
    cosine: float
    alternatives: tuple[Neighbour, ...]


@dataclass(frozen=True)
class HardReadout:
    """Real words that mean the prompt: gibberish that can be pasted anywhere.

    Attributes:
        tokens: number of tokens of `text`.
        similarity: similarity of `text`, tokenized again, to the prompt.
        composed: mean composition fidelity of `text`; None if no context has room.
        evaluated: number of texts that the search scored.
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
    """Similarity of a composition to its reference text in one context. The floor is that of the prompt alone."""

    context: str
    similarity: float
    floor: float


@dataclass(frozen=True)
class ContextFidelity:
    """Composition fidelity in contexts that were not used in training."""

    contexts: tuple[ContextScore, ...]

    def __post_init__(self) -> None:
        if not self.contexts:
            raise ValueError("the composition fidelity has no contexts")

    @property
    def mean(self) -> float:
        return _mean([score.similarity for score in self.contexts])

    @property
    def worst(self) -> float:
        return min(score.similarity for score in self.contexts)

    @property
    def floor(self) -> float:
        return _mean([score.floor for score in self.contexts])


def _mean(values: list[float]) -> float:
    import numpy as np  # listing runs needs no numpy

    return float(np.mean(values))
