"""Data of a training: the task, its state at a step, and its result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.prompts.lineage import WeightedText

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt


@dataclass(frozen=True, eq=False)
class TrainingState:
    """The complete state of a training at one step. On the cpu, resuming from it gives identical bits.

    `tensors` are on the cpu. For tokens="auto", `tokens` is the number in training and `best` the best soft prompt of
    the numbers before it.
    """

    step: int
    seconds: float
    tokens: int
    tensors: dict[str, Tensor]
    best: SoftPrompt | None = None


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training: the best vectors of the best restart, and that restart's history."""

    vectors: Tensor  # (k, w) float32 on the cpu
    losses: Tensor  # (steps,) float32 on the cpu
    similarities: Tensor  # (steps,) of the soft prompt alone
    loss: float
    steps: int
    seconds: float
    stopped: str  # steps | stop_at | patience | interrupted | failed
    skipped: tuple[str, ...]  # contexts that leave no room for the prompt
    device: str  # with the precision, such as "cpu, float32"
    failure: str = ""


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One training to run in a batch: a hard prompt, or the weighted texts `meanings`, and a `key` that identifies it.

    init="soft" starts from `start` (k, w). With `resume`, training continues from that state.
    """

    text: str
    config: TrainConfig = field(default_factory=TrainConfig)
    meanings: tuple[WeightedText, ...] = ()
    start: Tensor | None = None
    resume: TrainingState | None = None
    key: str = ""
