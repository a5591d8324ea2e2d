"""Measurements of a soft prompt: its readout, hard readout and fidelity in contexts."""

from __future__ import annotations

from dataclasses import dataclass

from softprompt.arguments import checked_fields, convert_fields


@dataclass(frozen=True)
class Neighbour:
    """A vocabulary token near a soft token, and the cosine between them."""

    token: str
    cosine: float


@dataclass(frozen=True)
class ReadoutToken:
    """The vocabulary token nearest to one soft token, with the next nearest as alternatives."""

    token: str
    cosine: float
    alternatives: tuple[Neighbour, ...]


@checked_fields
@dataclass(frozen=True)
class HardReadout:
    """Real words with the same meaning as the prompt. They read like gibberish, but can be pasted anywhere.

    Attributes:
        tokens: number of tokens of `text`.
        similarity: similarity of `text`, once re-tokenized, to the prompt.
        composed: mean composition fidelity of `text`, or None if it fits into no context.
        evaluated: number of texts that the search scored.
    """

    text: str
    tokens: int
    similarity: float
    composed: float | None
    method: str
    evaluated: int
    seconds: float

    def __post_init__(self) -> None:
        convert_fields(self)


@dataclass(frozen=True)
class ContextScore:
    """Similarity of a composition to its reference text in one context. `floor` is that of the prompt alone."""

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
    import numpy as np  # not needed to list runs

    return float(np.mean(values))
