"""Many trainings, each as soon as there is a place for it: as many at once as the device has memory for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from softprompt.encoders.base import FrozenModel
from softprompt.errors import ConfigError, SoftPromptError
from softprompt.objectives.base import HardPrompt, Objective, ObjectiveFor
from softprompt.training.batch import TrainingBatch
from softprompt.training.errors import TrainingFailed
from softprompt.training.init import init_vectors
from softprompt.training.loop import device_failure
from softprompt.training.slot import BatchSlot
from softprompt.training.task import TrainingTask

MAX_ROWS = 1024
POSITIONS_ON_CPU = 2048  # run in one step: more are no faster there (tests/benchmarks/README.md)
SHARE_OF_MEMORY = 0.5  # of what is free on a GPU

Done = tuple[TrainingTask, BatchSlot | SoftPromptError]


def max_rows(model: FrozenModel, objective: Objective) -> int:
    """How many rows (restarts counted) train at once: what a GPU's memory holds, or what keeps a cpu busy."""
    if model.device.type != "cuda":
        return max(1, min(MAX_ROWS, POSITIONS_ON_CPU // objective.positions))
    free, _ = torch.cuda.mem_get_info(model.device)
    return max(1, min(MAX_ROWS, int(free * SHARE_OF_MEMORY / objective.row_bytes)))


def train_scheduled(
    model: FrozenModel,
    objective_for: ObjectiveFor,
    tasks: Iterable[TrainingTask],
    *,
    places: int | None = None,
    on_step: Callable[[TrainingBatch], bool | None] | None = None,
) -> Iterator[Done]:
    """Trains tasks of one plan, drawn as places get free; yields each with the member it was when it is over, or why it could not begin.

    `places` counts rows: a task takes as many as it has restarts. `on_step` is called after every step; it may let members leave, or say of
    one that is read back that it is `stopped`, and returning True ends all, so that nothing more is yielded. Where memory runs out, what trains goes on from where it is on half of the places. A device that fails in another way
    ends those that train with the best so far and `failure` set. Raises TrainingFailed where it gives nothing back any more.
    """
    waiting: Iterator[TrainingTask] = iter(tasks)
    most = places
    while True:
        first = next(waiting, None)
        if first is None:
            return
        if first.config.tokens == "auto":
            yield first, ConfigError("tokens is auto, which finds the number one after another: give a number")
            continue
        try:
            tokens = [first.config.tokens]
            pool = TrainingBatch(model, objective_for(first.config, tokens), first.config, tokens)
            most = most or max_rows(model, pool.objective)
        except SoftPromptError as error:  # more soft tokens than fit: true of every task of this plan, and said of each
            yield first, error
            continue
        round_ = _Round(pool, chain([first], waiting), most)
        yield from round_.run(on_step)
        if round_.stopped:
            return
        if round_.left:
            most = max(1, most // 2)
            waiting = chain(round_.left, waiting)


class _Ready(NamedTuple):
    """A task that can be let in."""

    task: TrainingTask
    prompt: HardPrompt
    start: Tensor


class _Round:
    """A pool that is fed until nothing is left to be trained, or memory runs out: then `left` has what goes on in the next one."""

    def __init__(self, pool: TrainingBatch, tasks: Iterator[TrainingTask], most: int) -> None:
        self.pool, self.tasks, self.most = pool, tasks, most
        self.plan = pool.config.plan
        self.of: dict[BatchSlot, TrainingTask] = {}
        self.left: list[TrainingTask] = []
        self.next: TrainingTask | None = None
        self.drawn: list[TrainingTask] = []  # that are about to be let in
        self.stopped = False

    def run(self, on_step: Callable[[TrainingBatch], bool | None] | None) -> Iterator[Done]:
        pool = self.pool
        try:
            while True:
                yield from self._fill()
                if not pool.slots:
                    return
                pool.step()
                if on_step and on_step(pool):
                    self.stopped = True
                    return
                if pool.should_check():
                    pool.check()
                if over := [member for member in pool.slots if member.stopped]:
                    pool.remove(over)
                    for member in over:
                        yield self.of.pop(member), member
        except RuntimeError as error:
            yield from self._failed(error)

    def _fill(self) -> Iterator[Done]:
        """Lets in as many as there are places for; a task with more restarts than places gets in alone."""
        ready: list[_Ready] = []
        taken = sum(member.config.restarts for member in self.pool.slots)
        while True:
            self.next = self.next or next(self.tasks, None)
            if self.next is None or (taken and taken + self.next.config.restarts > self.most):
                break
            task, self.next = self.next, None
            self.drawn.append(task)
            try:
                ready.append(self._prepared(task))
                taken += task.config.restarts
            except SoftPromptError as error:
                self.drawn.remove(task)
                yield task, error
        yield from self._let_in(ready)
        self.drawn.clear()

    def _prepared(self, task: TrainingTask) -> _Ready:
        config = task.config
        if config.plan != self.plan:
            raise ConfigError("trainings in one batch have the same tokens, contexts and objective")
        assert config.tokens != "auto"
        prompt = self.pool.objective.tokenize(task.text, task.meanings, config.long)
        return _Ready(task, prompt, init_vectors(self.pool.model, prompt, config, config.tokens, task.start))

    def _let_in(self, ready: list[_Ready]) -> Iterator[Done]:
        pool = self.pool
        try:
            members = pool.prepare([(one.prompt, one.task.config, one.task.key) for one in ready]) if ready else []
        except SoftPromptError as error:  # of one of them
            if len(ready) == 1:
                yield ready[0].task, error
            else:
                for one in ready:
                    yield from self._let_in([one])
            return
        self.of |= {member: one.task for member, one in zip(members, ready, strict=True)}
        pool.insert([(member, one.start, one.task.resume) for member, one in zip(members, ready, strict=True)])
        over = [member for member in members if member.stopped]  # its state was taken at the very step that ended it
        pool.remove(over)
        for member in over:
            yield self.of.pop(member), member

    def _failed(self, error: RuntimeError) -> Iterator[Done]:
        """Memory that ran out costs places; any other failure is the device's last, and so is one where nothing trains."""
        pool, lacks_memory = self.pool, isinstance(error, torch.OutOfMemoryError)
        if lacks_memory and len(pool.slots) + len(self.drawn) > 1:
            pool.sync(pool.slots)
            self.left = [replace(self.of[member], resume=pool.state(member)) for member in pool.slots]
            self._leave_the_rest()
            return
        for member in pool.slots:
            member.stopped, member.failure = "failed", device_failure(error, pool.model.device)
            yield self.of[member], member
        if not lacks_memory or not pool.slots:
            raise TrainingFailed(device_failure(error, pool.model.device)) from error
        self._leave_the_rest()

    def _leave_the_rest(self) -> None:
        """What was drawn already, and is not in, is drawn again."""
        inside = {id(self.of[member]) for member in self.pool.slots}
        self.left += [task for task in self.drawn if id(task) not in inside]
        self.left += [self.next] if self.next else []
