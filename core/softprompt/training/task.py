"""A training to be done, where it is, and what it comes to."""

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
    """Everything that a training is at a step: on the cpu, going on from it alone gives the bits of one never interrupted.

    `tensors` are on the cpu; `tokens` and `best` are where "auto" is: the number being tried, and the best of those before.
    """

    step: int
    seconds: float
    tokens: int
    tensors: dict[str, Tensor]
    best: SoftPrompt | None = None


@dataclass(frozen=True)
class TrainingResult:
    """What a training came to: the best vectors of the best restart, and that restart's history."""

    vectors: Tensor  # (k, w) float32 on the cpu
    losses: Tensor  # (steps,) float32 on the cpu
    similarities: Tensor  # (steps,) of the prompt alone
    loss: float
    steps: int
    seconds: float
    stopped: str  # steps | stop_at | patience | interrupted | failed
    skipped: tuple[str, ...]  # contexts in which the prompt does not fit
    device: str  # and the tower's precision on it, such as "cpu, float32"
    failure: str = ""


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """A training to be done in a pool: a hard prompt, or the `meanings` it has together, and a `key` to know it by.

    `start` (k, w) is what init "soft" begins from; `resume` a state to go on from.
    """

    text: str
    config: TrainConfig = field(default_factory=TrainConfig)
    meanings: tuple[WeightedText, ...] = ()
    start: Tensor | None = None
    resume: TrainingState | None = None
    key: str = ""
