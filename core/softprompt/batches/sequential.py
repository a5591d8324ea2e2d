"""Train tasks one after another, with the interface of `train_many`.

This is for tasks with tokens="auto", which cannot share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from softprompt.errors import SoftPromptError
from softprompt.training.trainer import train

if TYPE_CHECKING:
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.loop import Report
    from softprompt.training.model_kinds import Model
    from softprompt.training.task import TrainingState, TrainingTask

REPORT_STEPS = 10


class _Stopped(Exception):  # control flow, not an error
    """Raised when `on_step` stops training."""


class SequentialBatch:
    """A batch whose only slot is itself. Provides the attributes of TrainingBatch that `on_step` uses."""

    def __init__(self, task: TrainingTask, report: Report) -> None:
        self.config, self.step = task.config, report.step
        self.slots = (self,)
        self.key, self._report = task.key, report

    def states(self) -> dict[str, TrainingState]:
        return {self.key: self._report.state()}


def train_sequentially(
    encoder: Model,
    tasks: Iterable[TrainingTask],
    *,
    row_limit: int | None = None,  # noqa: ARG001  # only one task runs at a time
    on_step: Callable[[Any], bool | None] | None = None,
) -> Iterator[tuple[TrainingTask, SoftPrompt | SoftPromptError]]:
    """Train one task at a time. For the arguments, see `train_many`."""
    for task in tasks:

        def check_report(report: Report, task: TrainingTask = task) -> None:
            if on_step is not None and on_step(SequentialBatch(task, report)):
                raise _Stopped

        outcome: SoftPrompt | SoftPromptError
        try:
            outcome = train(
                encoder,
                task.text,
                task.config,
                meanings=task.meanings,
                interval=REPORT_STEPS,
                resume=task.resume,
                on_report=check_report,
            )
        except _Stopped:
            return
        except SoftPromptError as error:
            outcome = error
        yield task, outcome
