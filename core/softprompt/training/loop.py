"""The training loop for one prompt: gradient descent on a few input embeddings of a frozen model.

It uses a TrainingBatch with one slot. Sources: Lester et al. 2021 (prompt tuning), Gal et al. 2022 (textual inversion);
norm projection and training in contexts are this project's own.

Shapes: k soft tokens, w width.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.encoders.base import FrozenModel, check_token_count
from softprompt.errors import ConfigError, describe_error
from softprompt.objectives.base import HardPrompt, ObjectiveFactory
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.values import ComparedByValue
from softprompt.prompts.visible_text import short_repr
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import StateLost, TrainingFailed
from softprompt.training.init import init_vectors
from softprompt.training.slot import BatchSlot
from softprompt.training.task import TrainingResult, TrainingState

# steps between reports, or a function from the step to whether a report is due; it is called after every step and never
# waits for the device
Interval = int | Callable[[int], bool]


@dataclass(frozen=True, eq=False, repr=False)
class Report(ComparedByValue):
    """Progress of a training run. `loss` and `similarity` are those of the best restart at this step.

    A report can be compared and pickled. A pickled or copied report has no state.

    Attributes:
        best_loss, best_similarity: those of the best step so far.
        vectors: (tokens, width) the best so far, on the CPU.
        restarts: the loss of every restart at this step; () if there is only one.
        state: call `report.state()` before training continues, to resume from this step later.
        stopped: why training ended: "steps", "stop_at", "patience" or "interrupted"; "" while it continues.
        result: the soft prompt, on the last report of a run; otherwise None.
    """

    step: int
    steps: int
    loss: float
    similarity: float
    best_loss: float
    best_similarity: float
    seconds: float
    vectors: Tensor
    restarts: tuple[float, ...]
    state: Callable[[], TrainingState] = field(compare=False)
    stopped: str = ""
    result: SoftPrompt | None = None

    @property
    def steps_per_second(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0

    _hashed = ("step", "steps", "stopped")

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"state": _no_state}

    def __repr__(self) -> str:
        return short_repr(
            "Report",
            step=self.step,
            steps=self.steps,
            loss=self.loss,
            similarity=self.similarity,
            best_loss=self.best_loss,
            best_similarity=self.best_similarity,
            seconds=self.seconds,
            vectors=tuple(self.vectors.shape),
            stopped=self.stopped,
        )


def _no_state() -> TrainingState:
    raise StateLost(
        "this report was pickled or copied, so it has no training state. Call state() on the original report while it "
        "trains, and pickle the TrainingState."
    )


def train_one(
    model: FrozenModel,
    make_objective: ObjectiveFactory,
    prompt: HardPrompt,
    config: TrainConfig,
    *,
    start: Tensor | None = None,
    interval: Interval = 10,
    resume: TrainingState | None = None,
) -> Generator[Report, bool | None, TrainingResult]:
    """Train one soft prompt. Yields a Report at every `interval` and at the end; send True to stop.

    If the loss becomes NaN or the device fails, the result has the best vectors so far, and `failure` is set.

    Args:
        start: (k, w) the start vectors for init "soft".
        resume: a state to continue from.

    Raises:
        ConfigError: the model has no room for this many soft tokens, a setting cannot be used here, or `resume` is the
            state of another run.
        TrainingFailed: the device failed before the first step.
    """
    if config.tokens == "auto":
        raise ConfigError("tokens is 'auto', which only train and iter_train support. Use a number.")
    check_token_count(model, config.tokens)
    try:
        batch = TrainingBatch(model, make_objective(config, [config.tokens]), config, [config.tokens])
        (slot,) = batch.prepare([(prompt, config, "")])
        batch.insert([(slot, init_vectors(model, prompt, config, config.tokens, start), resume)])
    except RuntimeError as error:  # torch raises it or a subclass if a device is lost or full
        raise TrainingFailed(device_failure(error, model.device)) from error

    is_due = interval if callable(interval) else lambda step: step % interval == 0
    if slot.stopped:  # resumed from the state of its last step
        yield build_report(batch, slot)
    while not slot.stopped:
        try:
            batch.step()
            if batch.should_check():
                batch.check()
        except RuntimeError as error:
            slot.stopped, slot.failure = "failed", device_failure(error, model.device)
            break
        if not is_due(slot.step) and not slot.stopped:  # outside `try`: an error in `interval` is no device failure
            continue
        try:
            batch.sync([slot])
            report = build_report(batch, slot)
        except RuntimeError as error:
            slot.stopped, slot.failure = "failed", device_failure(error, model.device)
            break
        if (yield report) and not slot.stopped:
            slot.stopped = "interrupted"
    return slot.result(model.device_label)


def build_report(batch: TrainingBatch, slot: BatchSlot) -> Report:
    """Build a report from the slot's last sync."""
    history, row = slot.history(), slot.best_row
    current = history[-1, :, row].tolist()
    best = history[int(slot.metrics.best_step[row]), :, row].tolist()
    return Report(
        step=slot.step,
        steps=slot.config.steps,
        loss=current[0],
        similarity=current[1],
        best_loss=float(slot.metrics.best_loss[row]),
        best_similarity=best[1],
        seconds=slot.seconds,
        vectors=slot.vectors,
        restarts=tuple(history[-1, 0].tolist()) if slot.config.restarts > 1 else (),
        state=partial(_state, batch, slot, slot.step),
        stopped=slot.stopped,
    )


def _state(batch: TrainingBatch, slot: BatchSlot, step: int) -> TrainingState:
    if slot.step != step:
        raise StateLost(
            f"training has gone on to step {slot.step}, so the state of step {step} is gone. Call state() before the "
            "next report."
        )
    return batch.state(slot)


def device_failure(error: RuntimeError, device: torch.device) -> str:
    """Return the message for a lost or full device."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"{device} is out of memory: use fewer restarts, fewer contexts or another device"
    return f"{device} failed: {describe_error(error)}"
