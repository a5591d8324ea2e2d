"""The contract of an objective: what a training minimises, and all that training knows of it.

An objective owns its targets, the contexts around the soft tokens and the rows that the model reads. Training owns the
vectors, their optimizer and the rules that end a training. Shapes: R rows, one for each restart of each training that is
in the batch, in its order; k soft tokens, w width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from softprompt.config import Long, TrainConfig
from softprompt.prompts.lineage import WeightedText


@dataclass(frozen=True)
class HardPrompt:
    """A hard prompt made ready for one model: the user's text, and its tokens in as many pieces as the context asks for.

    `dropped` is the end of the text where it was cut, or empty. One that means several texts together has them, with their shares, as
    `variants`: its own text is for people to read, and its pieces are all of theirs.
    """

    text: str
    pieces: tuple[tuple[int, ...], ...]
    dropped: str = ""
    variants: tuple[tuple[float, HardPrompt], ...] = ()

    @property
    def tokens(self) -> int:
        """Of the longest of its variants, where it has any."""
        return max((one.tokens for _, one in self.variants), default=sum(map(len, self.pieces)))

    @property
    def meanings(self) -> tuple[WeightedText, ...]:
        return tuple(WeightedText(one.text, share) for share, one in self.variants)


class Target(Protocol):
    """What one prompt's training is compared with, computed before its first step. Only its objective looks inside."""

    @property
    def skipped(self) -> tuple[str, ...]:
        """The contexts in which the prompt does not fit."""
        ...


class Evaluation(NamedTuple):
    """What one step makes of every row: the loss that is minimised, and the figures that people watch."""

    loss: Tensor  # (R,), with a gradient
    similarity: Tensor  # (R,) of the prompt alone; training stops at it and keeps the best vectors by the loss
    composed: Tensor  # (R,) the mean in this turn's contexts


class Seat(NamedTuple):
    """A training in the batch: its target, its number of soft tokens and its number of rows."""

    target: Any  # a Target of the same objective
    tokens: int
    rows: int


class Objective(Protocol):
    """What a training minimises.

    A batch calls `prepare` before a training's first step, `seat` whenever rows have joined or left, and `evaluate` at
    every step. `evaluate` reads nothing of the host and puts nothing at a new place, so that a step can be recorded.
    """

    @property
    def turns(self) -> int:
        """Steps take turns: step n evaluates turn n % turns. One turn is enough where every step is alike."""
        ...

    @property
    def positions(self) -> int:
        """How many positions the model runs for one row, at most."""
        ...

    @property
    def row_bytes(self) -> int:
        """How much memory one row takes until its gradient is there, at most."""
        ...

    def tokenize(self, text: str, meanings: Sequence[WeightedText], long: Long) -> HardPrompt:
        """The hard prompt of a training. Raises PromptError, PromptTooLong."""
        ...

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig]]) -> list[Any]:
        """The targets of trainings that are about to begin, in one pass. Raises ConfigError where one cannot have any."""
        ...

    def seat(self, seats: Sequence[Seat]) -> None:
        """Say which rows there are from now on."""
        ...

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        """Compare `vectors` (R, k, w) with the targets of the rows that are seated; gradients flow to `vectors`."""
        ...


ObjectiveFor = Callable[
    [TrainConfig, Sequence[int]], Objective
]  # of a plan, and the numbers of soft tokens in its batch
