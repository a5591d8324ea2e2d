"""Data structures for a training run: the task, its state at a step, and its result.

Shapes: k soft tokens, w width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from softprompt.argument_types import wrong_type
from softprompt.arguments import checked_fields, convert_fields
from softprompt.config import TrainConfig
from softprompt.errors import ArgumentError
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.values import ComparedByValue
from softprompt.prompts.visible_text import short_repr

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt


@checked_fields
@dataclass(frozen=True, eq=False, repr=False)
class TrainingState(ComparedByValue):
    """The complete state of a training run at one step. On the CPU, a resumed run gives identical bits.

    `tensors` holds the optimizer's STATE_KEYS and "history", on the CPU. With tokens="auto", `tokens` is the count that
    is being trained and `best` the best soft prompt of the smaller counts. `threads` is the number of CPU threads, on
    which the bits depend, or 0 if it is unknown or the run is on a GPU. `run` identifies the text and the settings, or
    is "" if unknown.
    """

    step: int
    seconds: float
    tokens: int
    tensors: dict[str, Tensor]
    best: SoftPrompt | None = None
    threads: int = 0
    run: str = ""

    def __post_init__(self) -> None:
        convert_fields(self)
        for name in ("step", "seconds", "threads"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ArgumentError(f"TrainingState.{name} is {value}; expected at least 0")
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, Tensor):
                raise wrong_type(f"TrainingState.tensors[{name!r}]", tensor, "a torch.Tensor")

    _hashed = ("step", "tokens")

    def __repr__(self) -> str:
        names = sorted(self.tensors)
        return short_repr("TrainingState", step=self.step, seconds=self.seconds, tokens=self.tokens, tensors=names)


@dataclass(frozen=True, eq=False)
class TrainingResult(ComparedByValue):
    """Result of a training run: the best vectors of the best restart, and that restart's history."""

    vectors: Tensor  # (k, w) float32, on the CPU
    losses: Tensor  # (steps,) float32, on the CPU
    similarities: Tensor  # (steps,) of the soft prompt alone
    loss: float
    steps: int
    seconds: float
    stopped: str  # steps | stop_at | patience | interrupted | failed
    skipped: tuple[str, ...]  # contexts that leave no room for the prompt
    device: str  # and precision, such as "cpu, float32"
    failure: str = ""

    _hashed = ("steps", "stopped", "device")


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One training run in a batch. The target is `text`, or the mix `meanings` if given.

    init="soft" starts from `start` (k, w). With `resume`, training continues from that state. `key` identifies the task
    to the caller.
    """

    text: str
    config: TrainConfig = field(default_factory=TrainConfig)
    meanings: tuple[WeightedText, ...] = ()
    start: Tensor | None = None
    resume: TrainingState | None = None
    key: str = ""
