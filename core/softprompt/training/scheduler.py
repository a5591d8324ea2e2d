"""Train any number of tasks, as many at the same time as the device's memory allows (continuous batching)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from softprompt.encoders.base import FrozenModel
from softprompt.errors import ConfigError, SoftPromptError
from softprompt.objectives.base import HardPrompt, Objective, ObjectiveFactory
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import init_vectors
from softprompt.training.loop import device_failure
from softprompt.training.memory import free_bytes
from softprompt.training.slot import BatchSlot
from softprompt.training.task import TrainingTask

MAX_ROWS = 1024
MAX_CPU_POSITIONS = 2048  # per step; more are no faster on a CPU (tests/benchmarks/README.md)
GPU_MEMORY_FRACTION = 0.5  # of the free memory

TaskOutcome = tuple[TrainingTask, BatchSlot | SoftPromptError]


def max_rows(model: FrozenModel, objective: Objective) -> int:
    """Return how many rows to train at once: as many as fit into a GPU's memory, or enough to keep a CPU busy."""
    if model.device.type != "cuda":
        return max(1, min(MAX_ROWS, MAX_CPU_POSITIONS // objective.positions))
    free = free_bytes(model.device) or 0
    return max(1, min(MAX_ROWS, int(free * GPU_MEMORY_FRACTION / objective.row_bytes)))


def train_scheduled(
    model: FrozenModel,
    make_objective: ObjectiveFactory,
    tasks: Iterable[TrainingTask],
    *,
    row_limit: int | None = None,
    on_step: Callable[[TrainingBatch], bool | None] | None = None,
) -> Iterator[TaskOutcome]:
    """Train tasks that share a `TrainConfig.batch_key`. Yields each with its finished slot, or its error.

    Tasks are only read when rows become free. If memory runs out, training continues with half the rows. On any other
    device failure, the running tasks end with their best vectors so far, and `failure` is set.

    Args:
        row_limit: rows to train at once; a task needs one row per restart.
        on_step: called after every step. It may remove slots, or set `stopped` on a synced slot. If it returns True,
            training ends and nothing more is yielded.

    Raises:
        TrainingFailed: the device failed.
    """
    waiting: Iterator[TrainingTask] = iter(tasks)
    limit = row_limit
    while True:
        first = next(waiting, None)
        if first is None:
            return
        if first.config.tokens == "auto":
            yield first, ConfigError("tokens is 'auto', which a batch does not support. Use a number.")
            continue
        try:
            token_counts = [first.config.tokens]
            batch = TrainingBatch(model, make_objective(first.config, token_counts), first.config, token_counts)
            limit = limit or max_rows(model, batch.objective)
        except SoftPromptError as error:
            # for example more soft tokens than the model has room for; later tasks are tried and fail alike
            yield first, error
            continue
        scheduler = _Scheduler(batch, chain([first], waiting), limit)
        yield from scheduler.run(on_step)
        if scheduler.ended_by_caller:
            return
        if scheduler.leftover:
            limit = max(1, limit // 2)
            waiting = chain(scheduler.leftover, waiting)


class _ReadyTask(NamedTuple):
    """A task, ready to be inserted into the batch."""

    task: TrainingTask
    prompt: HardPrompt
    start: Tensor


class _Scheduler:
    """Feeds one batch until no task is left, memory runs out or the caller stops.

    After running out of memory, `leftover` holds the tasks for the next batch.
    """

    def __init__(self, batch: TrainingBatch, tasks: Iterator[TrainingTask], row_limit: int) -> None:
        self.batch, self.tasks, self.row_limit = batch, tasks, row_limit
        self.batch_key = batch.config.batch_key
        self.task_of: dict[BatchSlot, TrainingTask] = {}
        self.leftover: list[TrainingTask] = []
        self.next_task: TrainingTask | None = None
        self.entering: list[TrainingTask] = []  # read from `tasks`, but not in a slot yet
        self.ended_by_caller = False

    def run(self, on_step: Callable[[TrainingBatch], bool | None] | None) -> Iterator[TaskOutcome]:
        batch = self.batch
        try:
            while True:
                yield from self._fill()
                if not batch.slots:
                    return
                batch.step()
                if on_step and on_step(batch):
                    self.ended_by_caller = True
                    return
                if batch.should_check():
                    batch.check()
                if finished := [slot for slot in batch.slots if slot.stopped]:
                    batch.remove(finished)
                    for slot in finished:
                        yield self.task_of.pop(slot), slot
        except RuntimeError as error:
            yield from self._handle_failure(error)

    def _fill(self) -> Iterator[TaskOutcome]:
        """Insert tasks while rows are free. A task with more restarts than the limit is trained alone."""
        ready: list[_ReadyTask] = []
        rows = sum(slot.config.restarts for slot in self.batch.slots)
        while True:
            self.next_task = self.next_task or next(self.tasks, None)
            if self.next_task is None or (rows and rows + self.next_task.config.restarts > self.row_limit):
                break
            task, self.next_task = self.next_task, None
            self.entering.append(task)
            try:
                ready.append(self._prepare(task))
                rows += task.config.restarts
            except SoftPromptError as error:
                self.entering.remove(task)
                yield task, error
        yield from self._insert(ready)
        self.entering.clear()

    def _prepare(self, task: TrainingTask) -> _ReadyTask:
        config = task.config
        if config.batch_key != self.batch_key:
            raise ConfigError("all tasks in a batch must have the same tokens, contexts and objective")
        assert config.tokens != "auto"
        prompt = self.batch.objective.tokenize(task.text, task.meanings, config.long)
        return _ReadyTask(task, prompt, init_vectors(self.batch.model, prompt, config, config.tokens, task.start))

    def _insert(self, ready: list[_ReadyTask]) -> Iterator[TaskOutcome]:
        batch = self.batch
        try:
            slots = batch.prepare([(item.prompt, item.task.config, item.task.key) for item in ready]) if ready else []
        except SoftPromptError as error:  # one of the tasks caused it: insert them one by one to find which
            if len(ready) == 1:
                yield ready[0].task, error
            else:
                for item in ready:
                    yield from self._insert([item])
            return
        self.task_of |= {slot: item.task for slot, item in zip(slots, ready, strict=True)}
        batch.insert([(slot, item.start, item.task.resume) for slot, item in zip(slots, ready, strict=True)])
        finished = [slot for slot in slots if slot.stopped]  # resumed from the state of the last step
        batch.remove(finished)
        for slot in finished:
            yield self.task_of.pop(slot), slot

    def _handle_failure(self, error: RuntimeError) -> Iterator[TaskOutcome]:
        """Collect the tasks for a retry if memory ran out and there are several. Otherwise fail the running tasks."""
        batch, is_out_of_memory = self.batch, isinstance(error, torch.OutOfMemoryError)
        if is_out_of_memory and len(batch.slots) + len(self.entering) > 1:
            batch.sync(batch.slots)
            self.leftover = [replace(self.task_of[slot], resume=batch.state(slot)) for slot in batch.slots]
            self._collect_unstarted()
            return
        for slot in batch.slots:
            slot.stopped, slot.failure = "failed", device_failure(error, batch.model.device)
            yield self.task_of[slot], slot
        if not is_out_of_memory or not batch.slots:
            raise TrainingFailed(device_failure(error, batch.model.device)) from error
        self._collect_unstarted()

    def _collect_unstarted(self) -> None:
        """Add to `leftover` the tasks that were read but are in no slot yet."""
        started = {id(self.task_of[slot]) for slot in self.batch.slots}
        self.leftover += [task for task in self.entering if id(task) not in started]
        self.leftover += [self.next_task] if self.next_task else []
