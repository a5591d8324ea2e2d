"""One training: gradient descent on a few input embeddings of a frozen model, watched step by step.

It is a batch of one (softprompt.training.batch). Shapes: r restarts, k soft tokens, w width. Sources: Lester et al. 2021 (prompt tuning), Gal et al.
2022 (textual inversion); norm projection and context training are this project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.encoders.base import FrozenModel, check_tokens
from softprompt.errors import ConfigError, reason
from softprompt.objectives.base import HardPrompt, ObjectiveFor
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import init_vectors
from softprompt.training.slot import BatchSlot
from softprompt.training.task import TrainingResult, TrainingState

# every so many steps, or what says after each step whether a report is due; it costs no report and no wait for the device
Interval = int | Callable[[int], bool]


@dataclass(frozen=True)
class Report:
    """How far a training is. loss and similarity are the leading restart's at this step, the others the best so far.

    `state` captures the training as it is at this report; it must be called before the training goes on.
    """

    step: int
    steps: int
    loss: float
    similarity: float
    best_loss: float
    best_similarity: float
    seconds: float
    vectors: Tensor  # (k, w) on the cpu: the best so far
    restarts: tuple[float, ...]  # every restart's loss at this step; () where there is only one
    state: Callable[[], TrainingState] = field(repr=False)

    @property
    def steps_per_second(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0


def train_one(
    model: FrozenModel,
    objective_for: ObjectiveFor,
    prompt: HardPrompt,
    config: TrainConfig,
    *,
    start: Tensor | None = None,
    interval: Interval = 10,
    resume: TrainingState | None = None,
) -> Generator[Report, bool | None, TrainingResult]:
    """Trains, yields a Report every `interval` (and at the end), returns a Trained. Sending True stops it.

    `start` (k, w) is what init "soft" begins from; `resume` is a state to go on from. A loss that is no number, or a device
    that fails, ends it with the best until then and `failure` set. Raises ConfigError for more soft tokens than fit,
    TrainingFailed where not one step is possible.
    """
    if config.tokens == "auto":
        raise ConfigError("tokens is auto: only train and iter_train find the number")
    check_tokens(model, config.tokens)
    try:
        pool = TrainingBatch(model, objective_for(config, [config.tokens]), config, [config.tokens])
        (member,) = pool.prepare([(prompt, config, "")])
        pool.insert([(member, init_vectors(model, prompt, config, config.tokens, start), resume)])
    except RuntimeError as error:  # torch's type for a lost or full device, whichever it is
        raise TrainingFailed(device_failure(error, model.device)) from error

    due = interval if callable(interval) else lambda step: step % interval == 0
    try:
        while not member.stopped:
            pool.step()
            if pool.should_check():
                pool.check()
            if due(member.step) or member.stopped:
                pool.sync([member])
                if (yield report_of(pool, member)) and not member.stopped:
                    member.stopped = "interrupted"
    except RuntimeError as error:
        member.stopped, member.failure = "failed", device_failure(error, model.device)
    return member.trained(model.device_label)


def report_of(pool: TrainingBatch, member: BatchSlot) -> Report:
    """How far a member of a pool is, as of its last reading back."""
    figures, leader = member.figures(), member.leader
    now = figures[-1, :, leader].tolist()
    then = figures[int(member.at.best_step[leader]), :, leader].tolist()
    return Report(
        step=member.step,
        steps=member.config.steps,
        loss=now[0],
        similarity=now[1],
        best_loss=float(member.at.best_loss[leader]),
        best_similarity=then[1],
        seconds=member.seconds,
        vectors=member.vectors,
        restarts=tuple(figures[-1, 0].tolist()) if member.config.restarts > 1 else (),
        state=lambda: pool.state(member),
    )


def device_failure(error: RuntimeError, device: torch.device) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return f"{device} is out of memory: fewer restarts, fewer contexts or another device need less"
    return f"{device} failed: {reason(error)}"
