"""The objective interface: what a training run minimizes, and the only view of it that the training loop has.

An objective owns the targets, the contexts around the soft tokens and the token rows that the model encodes. The loop
owns the vectors, their optimizer and the stopping rules. A new pooled loss is a name in config.ObjectiveName and a
branch in losses.row_losses; any other loss is a new Objective, chosen in training.model_kinds.make_objective.

Shapes: R rows, one per restart of every slot, in the order of the slots; k soft tokens, w width.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from softprompt.arguments import checked_fields, convert_fields
from softprompt.config import LongPromptPolicy, TrainConfig
from softprompt.errors import ArgumentError
from softprompt.prompts.lineage import WeightedText


@checked_fields
@dataclass(frozen=True)
class HardPrompt:
    """A hard prompt, or a mix of several texts, tokenized for one model.

    Attributes:
        text: the user's text, or a description of the mix.
        chunks: token ids. A short prompt has one chunk; a mix has the chunks of all its variants.
        dropped: the text that was cut off a long prompt, or "".
        variants: the texts of a mix with their weights. Empty if the prompt is a single text.
    """

    text: str
    chunks: tuple[tuple[int, ...], ...]
    dropped: str = ""
    variants: tuple[tuple[float, HardPrompt], ...] = ()

    def __post_init__(self) -> None:
        convert_fields(self)
        if not self.chunks or not all(self.chunks):
            raise ArgumentError("chunks has no token; expected the token ids of each chunk, such as ((320, 3240),)")
        for share, _ in self.variants:
            if not 0 < share < math.inf:
                raise ArgumentError(f"HardPrompt.variants has the weight {share}; expected numbers greater than 0")

    @property
    def tokens(self) -> int:
        """Number of tokens, of the longest variant if this is a mix."""
        return max((variant.tokens for _, variant in self.variants), default=sum(map(len, self.chunks)))

    @property
    def meanings(self) -> tuple[WeightedText, ...]:
        """The texts of a mix with their weights. Empty if the prompt is a single text."""
        return tuple(WeightedText(variant.text, share) for share, variant in self.variants)


class Target(Protocol):
    """Everything one training run is compared against, computed before its first step.

    Opaque to all code except its objective.
    """

    @property
    def skipped(self) -> tuple[str, ...]:
        """Contexts without room for the hard prompt or the soft tokens."""
        ...


class Evaluation(NamedTuple):
    """Measurements from one step, for every row. `stop_at` watches the lower of the two similarities."""

    loss: Tensor  # (R,) minimized; carries a gradient. The result of training is the vectors with the lowest loss.
    similarity: Tensor  # (R,) of the soft prompt alone, without a context; of a language model, the agreement
    composed: Tensor  # (R,) composed similarity: the mean over this turn's contexts; the agreement again


class SlotTarget(NamedTuple):
    """The target of one slot, and the slot's numbers of soft tokens and rows."""

    target: Any  # a Target that this objective prepared
    tokens: int
    rows: int


class Objective(Protocol):
    """A loss and its targets.

    A batch calls `prepare` before a slot's first step, `set_slots` whenever slots are added or removed, and `evaluate`
    at every step. Step n evaluates turn n % `turns`. Each turn may use different contexts or questions.

    Attributes:
        similarity_varies: whether each turn measures the similarity on other inputs, so that only its mean over the
            turns counts.
    """

    similarity_varies: bool

    @property
    def turns(self) -> int:
        """Number of turns, or 1 if all steps are alike."""
        ...

    @property
    def positions(self) -> int:
        """The largest number of positions that the model computes per row in one step."""
        ...

    @property
    def row_bytes(self) -> int:
        """Upper bound for the memory that one row needs in a step, including the backward pass."""
        ...

    def tokenize(self, text: str, meanings: Sequence[WeightedText], long: LongPromptPolicy) -> HardPrompt:
        """Return the mix of `meanings`, or the prompt `text` if there are none.

        Raises:
            PromptError: a text is empty or contains a special token.
            PromptTooLong: a text does not fit into the model's context length, and `long` is "refuse".
        """
        ...

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig, str]]) -> list[Any]:
        """Compute the targets of several slots before their first step. They share forward passes.

        Args:
            prompts: each with its settings and the key of its run.

        Raises:
            ConfigError: this objective cannot be used with the model or with one of the prompts.
        """
        ...

    def set_slots(self, slots: Sequence[SlotTarget]) -> None:
        """Set the slots, in the order of their rows in `evaluate`."""
        ...

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        """Compare `vectors` (R, k, w) with the targets of all slots. Gradients flow to `vectors`.

        A CUDA graph may record and replay this call. It must therefore not copy values to the host, and its input
        tensors must keep their addresses until the next `set_slots`.
        """
        ...


# Creates the objective from the configuration and the token counts of a batch.
ObjectiveFactory = Callable[[TrainConfig, Sequence[int]], Objective]
