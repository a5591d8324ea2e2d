"""Many trainings in one batch: each has its rows in it, and those that are over leave their place to the next.

A training alone, its restarts, a sweep over numbers of tokens and thousands of prompts are all pools. Shapes: R rows (the restarts of all
members, one after another), r of one member, k soft tokens, w width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.encoders.base import FrozenModel
from softprompt.objectives.base import HardPrompt, Objective, Seat
from softprompt.training.cuda_graphs import graphs_for
from softprompt.training.optimizer import CHECK_STEPS, BatchedAdam, BatchMetrics, RowSchedule, clip_norm, init_rows
from softprompt.training.slot import BatchSlot
from softprompt.training.task import TrainingState


class TrainingBatch:
    """Trainings of one plan on one model. `tokens` are the numbers of soft tokens that its members have.

    Raises torch's RuntimeError where the device fails.
    """

    def __init__(self, model: FrozenModel, objective: Objective, config: TrainConfig, tokens: Sequence[int]) -> None:
        self.model, self.objective, self.config = model, objective, config
        self.optimizer = BatchedAdam(model.device, max(tokens), model.width, objective.turns)
        self.graphs = graphs_for(model.device)
        self.slots: list[BatchSlot] = []
        self.clock = 0

    def prepare(self, wanted: Sequence[tuple[HardPrompt, TrainConfig, str]]) -> list[BatchSlot]:
        """Members that are not yet in, of hard prompts with their settings and keys: all that is computed before a first step, in one pass."""
        targets = self.objective.prepare([(prompt, config) for prompt, config, _ in wanted])
        return [
            BatchSlot(prompt, config, target, key)
            for (prompt, config, key), target in zip(wanted, targets, strict=True)
        ]

    def insert(self, newcomers: Sequence[tuple[BatchSlot, Tensor, TrainingState | None]]) -> None:
        """Lets members in, which begin at a start (r, k, w) or go on from a state."""
        if not newcomers:
            return
        turns = self.objective.turns
        rows, schedules = [], []
        for member, start, resume in newcomers:
            config, r = member.config, member.config.restarts
            if resume is not None:
                member.step, member.before, member.read_to = resume.step, resume.seconds, resume.step
                member.history = [resume.tensors["history"].clone()]
                if not self.slots:
                    self.clock = resume.step  # alone it sees the contexts in the order in which it would have
            ceiling = self.model.token_norm if config.project_norm else math.inf
            rows.append(init_rows(clip_norm(start, ceiling), turns) if resume is None else resume.tensors)
            each = (member.step, config.steps, config.rate * self.model.token_std, ceiling)
            schedules.append(RowSchedule(*(torch.full((r,), value) for value in each)))
        self.optimizer.add(rows, schedules)  # what lacks memory for it leaves all as it was
        new = [member for member, _, _ in newcomers]
        for member in new:
            member.began = time.perf_counter()
        self.slots += new
        self._rebuild()
        self.sync(new)
        for member in new:
            if member.step and self.should_check():  # the state may have been taken at the very step that ended it
                self._decide(member)

    def remove(self, gone: Sequence[BatchSlot]) -> None:
        """Lets members go."""
        if not gone:
            return
        left = set(gone)
        kept: list[BatchSlot] = []
        rows: list[int] = []
        at = 0
        for member in self.slots:
            end = at + member.config.restarts
            if member not in left:
                kept.append(member)
                rows += range(at, end)
            at = end
        for member in left:
            member.ended = time.perf_counter()
        self.slots = kept
        self.optimizer.keep(rows)
        self._rebuild()

    def _rebuild(self) -> None:
        """Puts together what the members are compared with."""
        if self.graphs is not None:
            self.graphs.forget()
        if not self.slots:
            return
        self.objective.seat([Seat(member.target, member.tokens, member.config.restarts) for member in self.slots])
        self._limits = torch.cat(
            [
                torch.full((r,), math.inf if (limit := member.config.stop_at) is None else limit)
                for member in self.slots
                for r in (member.config.restarts,)
            ]
        )

    def step(self) -> None:
        """Take one step of every member. Waits for nothing."""
        turn = self.clock % self.objective.turns
        self.optimizer.advance_schedule(self.clock)
        if self.graphs is None:
            self._step(turn)
        else:
            self.graphs.run(turn, lambda: self._step(turn))
        self.clock += 1
        for member in self.slots:
            member.step += 1

    def _step(self, turn: int) -> None:
        self.optimizer.step(*self.objective.evaluate(self.optimizer.vectors, turn))

    def should_check(self) -> bool:
        """Whether the members have to be looked at: at fixed steps, so that the same seed stops at the same one."""
        if not self.slots:
            return False
        if self.clock % CHECK_STEPS == 0 or any(member.step == member.config.steps for member in self.slots):
            return True
        # on the cpu nothing has to be waited for, and one that stops at a similarity may do so after a dozen steps
        return self.model.device.type == "cpu" and bool((self.optimizer.tensors["best_reached"] >= self._limits).any())

    def check(self) -> None:
        """Reads the device, and says of the members that are over by their own rules why they are `stopped`."""
        self.sync(self.slots)
        for member in self.slots:
            self._decide(member)

    def sync(self, wanted: Sequence[BatchSlot]) -> None:
        """Brings members' figures up to this step. Waits for the device."""
        figures, at = self.optimizer.read(), 0
        for member in self.slots:
            rows = slice(at, at + member.config.restarts)
            at = rows.stop
            if member not in wanted:
                continue
            member.at = BatchMetrics(*(values[rows] for values in figures))
            new = member.step - member.read_to
            if new:
                places = [(self.clock - new + i) % CHECK_STEPS for i in range(new)]
                member.history.append(member.at.window[:, places].permute(1, 2, 0))
                member.read_to = member.step

    def _decide(self, member: BatchSlot) -> None:
        config, at = member.config, member.at
        if bool(member.history[-1][-1, 0].isnan().all()):
            member.stopped = "failed"
            member.failure = f"the loss stopped being a number by step {member.step}: try a rate below {config.rate:g}"
        elif config.stop_at is not None and float(at.best_reached[member.leader]) >= config.stop_at:
            member.stopped = "stop_at"
        elif config.patience is not None and member.step - 1 - int(at.last_fall.max()) >= config.patience:
            member.stopped = "patience"
        elif member.step >= config.steps:
            member.stopped = "steps"

    def states(self) -> dict[str, TrainingState]:
        """Where all members are, by their keys. Waits for the device."""
        self.sync(self.slots)
        return {member.key: self.state(member) for member in self.slots}

    def state(self, member: BatchSlot) -> TrainingState:
        """Where a member is, right after `check`. Waits for the device."""
        at = sum(one.config.restarts for one in self.slots[: self.slots.index(member)])
        tensors = self.optimizer.export_rows(slice(at, at + member.config.restarts), member.tokens)
        tensors["history"] = member.figures().clone()
        return TrainingState(member.step, member.seconds, member.tokens, tensors)
