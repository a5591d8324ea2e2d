"""Trainings one after another, as `train_many` trains them together: for those that a batch cannot hold, whose number of tokens is to be found."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from softprompt.errors import SoftPromptError
from softprompt.training.trainer import train

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.prompts.soft_prompt import SoftPrompt
    from softprompt.training.loop import Report
    from softprompt.training.task import TrainingState, TrainingTask

LOOK_EVERY = 10  # steps


class _Ended(Exception):  # no error: whoever looks on has had enough
    """The training is to be left where it is."""


class SequentialBatch:
    """A pool of one. `slots` are its trainings, of which a batch asks how far they are."""

    def __init__(self, task: TrainingTask, report: Report) -> None:
        self.config, self.step = task.config, report.step
        self.slots = (self,)
        self.key, self._report = task.key, report

    def states(self) -> dict[str, TrainingState]:
        return {self.key: self._report.state()}


def train_singly(
    encoder: TextEncoder,
    tasks: Iterable[TrainingTask],
    *,
    places: int | None = None,  # noqa: ARG001  # there is one
    on_step: Callable[[Any], bool | None] | None = None,
) -> Iterator[tuple[TrainingTask, SoftPrompt | SoftPromptError]]:
    """As `train_many`, one at a time."""
    for task in tasks:

        def look(report: Report, task: TrainingTask = task) -> None:
            if on_step is not None and on_step(SequentialBatch(task, report)):
                raise _Ended

        made: SoftPrompt | SoftPromptError
        try:
            made = train(
                encoder,
                task.text,
                task.config,
                meanings=task.meanings,
                interval=LOOK_EVERY,
                resume=task.resume,
                on_report=look,
            )
        except _Ended:
            return
        except SoftPromptError as error:
            made = error
        yield task, made
