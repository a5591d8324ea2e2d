"""The contract of an objective: what a training minimizes, and all that the training loop knows about it.

An objective owns the targets, the contexts around the soft tokens and the rows that the model encodes. The loop owns
the vectors, their optimizer and the stopping rules. A new loss is one new `Objective`.

Shapes: R rows, one per restart of every slot, in the order of the slots; k soft tokens, w width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from softprompt.config import LongPromptPolicy, TrainConfig
from softprompt.prompts.lineage import WeightedText


@dataclass(frozen=True)
class HardPrompt:
    """A hard prompt, or a mix of several, tokenized for one model.

    Attributes:
        text: the user's text; for a mix, a description of it.
        chunks: token ids. A short prompt has one chunk, a mix has the chunks of all its variants.
        dropped: the end of a long prompt that was cut, or empty.
        variants: the texts of a mix, each with its weight. Empty if the prompt is a single text.
    """

    text: str
    chunks: tuple[tuple[int, ...], ...]
    dropped: str = ""
    variants: tuple[tuple[float, HardPrompt], ...] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens; for a mix, of its longest variant."""
        return max((variant.tokens for _, variant in self.variants), default=sum(map(len, self.chunks)))

    @property
    def meanings(self) -> tuple[WeightedText, ...]:
        """The texts of a mix with their weights, or empty."""
        return tuple(WeightedText(variant.text, share) for share, variant in self.variants)


class Target(Protocol):
    """All that one training is compared with, computed before its first step. Only its objective looks inside."""

    @property
    def skipped(self) -> tuple[str, ...]:
        """Contexts that have no room for the hard prompt or the soft tokens."""
        ...


class Evaluation(NamedTuple):
    """What one step measures, for every row."""

    loss: Tensor  # (R,) minimized; has a gradient. Training returns the vectors with the lowest loss.
    similarity: Tensor  # (R,) of the soft prompt alone, without a context; the stopping rule `stop_at` watches it
    composed: Tensor  # (R,) composed similarity: the mean over this turn's contexts


class SlotTarget(NamedTuple):
    """The target of one slot, with the slot's number of soft tokens and of rows."""

    target: Any  # a Target that this objective prepared
    tokens: int
    rows: int


class Objective(Protocol):
    """A loss and its targets.

    A batch calls `prepare` before a training's first step, `set_slots` whenever a slot is added or removed, and
    `evaluate` at every step. Steps take turns: step n evaluates turn n % `turns`. Every turn may have other contexts.
    """

    @property
    def turns(self) -> int:
        """Number of turns; 1 if all steps are alike."""
        ...

    @property
    def positions(self) -> int:
        """Largest number of positions that the model computes for one row in a step."""
        ...

    @property
    def row_bytes(self) -> int:
        """Upper bound of the memory that one row needs in a step, backward pass included."""
        ...

    def tokenize(self, text: str, meanings: Sequence[WeightedText], long: LongPromptPolicy) -> HardPrompt:
        """Return the mix of `meanings`, or the prompt `text` if there are none.

        Raises:
            PromptError: a text is empty or contains a special token.
            PromptTooLong: a text does not fit into the model's context, and `long` is "refuse".
        """
        ...

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig]]) -> list[Any]:
        """Compute the targets of several trainings before their first step, to share forward passes.

        Raises:
            ConfigError: this objective cannot be used with the model or with one of the prompts.
        """
        ...

    def set_slots(self, slots: Sequence[SlotTarget]) -> None:
        """Set the slots, in the order of their rows in `evaluate`."""
        ...

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        """Compare `vectors` (R, k, w) with the targets of all slots. Gradients flow to `vectors`.

        A CUDA graph may record and replay this call, so it must not copy values to the host, and the tensors that it
        reads must keep their addresses until the next `set_slots`.
        """
        ...


# Creates the objective for a configuration and for all numbers of soft tokens in the batch.
ObjectiveFactory = Callable[[TrainConfig, Sequence[int]], Objective]
