"""Train many soft prompts in one batch. When one finishes, the next waiting prompt takes its rows.

A single prompt, its restarts, a token sweep and thousands of prompts are all trained in such a batch.

Shapes: R rows (the restarts of all slots in order), r rows of one slot, k soft tokens, w width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.encoders.base import FrozenModel
from softprompt.errors import ConfigError
from softprompt.objectives.base import HardPrompt, Objective, SlotTarget
from softprompt.training.cuda_graphs import graphs_for
from softprompt.training.memory import check_memory
from softprompt.training.optimizer import CHECK_STEPS, BatchedAdam, BatchMetrics, RowSchedule, clip_norm, init_rows
from softprompt.training.slot import BatchSlot
from softprompt.training.task import TrainingState


class TrainingBatch:
    """Several training runs on one model with one objective. Each slot has its own schedule and stopping rules.

    `token_counts` lists the numbers of soft tokens that a slot may have. If the device fails, methods raise torch's
    RuntimeError.

    Raises:
        TrainingFailed: the memory does not suffice for a single slot.
    """

    def __init__(
        self, model: FrozenModel, objective: Objective, config: TrainConfig, token_counts: Sequence[int]
    ) -> None:
        check_memory(model.device, objective, config.restarts)
        self.model, self.objective, self.config = model, objective, config  # slots share only the config's batch_key
        self.optimizer = BatchedAdam(
            model.device, max(token_counts), model.width, objective.turns, objective.similarity_varies
        )
        self.graphs = graphs_for(model.device)
        # read now: when `state` is called, the caller's own number of threads may be restored
        self.threads = torch.get_num_threads() if model.device.type == "cpu" else 0
        self.slots: list[BatchSlot] = []
        self.clock = 0  # steps of the batch; selects the turn and the column of the window

    def prepare(self, trainings: Sequence[tuple[HardPrompt, TrainConfig, str]]) -> list[BatchSlot]:
        """Return a slot for each (prompt, config, key), not inserted yet. All targets are encoded in one pass."""
        targets = self.objective.prepare(trainings)
        return [
            BatchSlot(prompt, config, target, key)
            for (prompt, config, key), target in zip(trainings, targets, strict=True)
        ]

    def insert(self, new_slots: Sequence[tuple[BatchSlot, Tensor, TrainingState | None]]) -> None:
        """Add slots, each with its start vectors (r, k, w) or, if there is one, a saved state."""
        if not new_slots:
            return
        turns = self.objective.turns
        rows, schedules = [], []
        for slot, start, state in new_slots:
            config, r = slot.config, slot.config.restarts
            if state is not None:
                _check_state(state, init_rows(start, turns))
                slot.step, slot.seconds_before, slot.synced_step = state.step, state.seconds, state.step
                slot.history_chunks = [state.tensors["history"].clone()]
                if not self.slots:
                    self.clock = state.step  # a run resumed alone continues with the turn it would have had
            max_norm = self.model.token_norm if config.project_norm else math.inf
            rows.append(init_rows(clip_norm(start, max_norm), turns) if state is None else state.tensors)
            values = (slot.step, config.steps, config.rate * self.model.token_std, max_norm)
            schedules.append(RowSchedule(*(torch.full((r,), value) for value in values)))
        self.optimizer.add_rows(rows, schedules)  # if memory runs out, this raises and leaves the batch as it was
        slots = [slot for slot, _, _ in new_slots]
        for slot in slots:
            slot.started_at = time.perf_counter()
        self.slots += slots
        self._rebuild()
        self.sync(slots)
        for slot in slots:
            if slot.step and self.should_check():  # the saved state may be that of the slot's last step
                self._check_finished(slot)

    def remove(self, slots: Sequence[BatchSlot]) -> None:
        """Remove slots and their rows."""
        if not slots:
            return
        removed = set(slots)
        remaining: list[BatchSlot] = []
        rows: list[int] = []
        begin = 0
        for slot in self.slots:
            end = begin + slot.config.restarts
            if slot not in removed:
                remaining.append(slot)
                rows += range(begin, end)
            begin = end
        for slot in removed:
            slot.finished_at = time.perf_counter()
        self.slots = remaining
        self.optimizer.keep_rows(rows)
        self._rebuild()

    def _rebuild(self) -> None:
        """Concatenate the targets and stopping rules of all slots."""
        if self.graphs is not None:
            self.graphs.clear()
        if not self.slots:
            return
        self.objective.set_slots([SlotTarget(slot.target, slot.tokens, slot.config.restarts) for slot in self.slots])
        self._stop_at = torch.cat(
            [
                torch.full((r,), math.inf if (stop_at := slot.config.stop_at) is None else stop_at)
                for slot in self.slots
                for r in (slot.config.restarts,)
            ]
        )

    def step(self) -> None:
        """Take one optimizer step for every row. Does not wait for the device."""
        turn = self.clock % self.objective.turns
        self.optimizer.advance_schedule(self.clock)
        if self.graphs is None:
            self._step(turn)
        else:
            self.graphs.run(turn, lambda: self._step(turn))
        self.clock += 1
        for slot in self.slots:
            slot.step += 1

    def _step(self, turn: int) -> None:
        self.optimizer.step(*self.objective.evaluate(self.optimizer.vectors, turn))  # loss and similarities, (R,) each

    def should_check(self) -> bool:
        """Return whether to call `check`.

        A check is due every CHECK_STEPS steps, at a slot's last step and, on the CPU, once a row reaches `stop_at`.
        Elapsed time plays no part, so runs with the same seed stay identical.
        """
        if not self.slots:
            return False
        if self.clock % CHECK_STEPS == 0 or any(slot.step == slot.config.steps for slot in self.slots):
            return True
        # on the CPU there is nothing to wait for, and a run with `stop_at` may need only a dozen steps
        return self.model.device.type == "cpu" and bool((self.optimizer.tensors["best_reached"] >= self._stop_at).any())

    def check(self) -> None:
        """Sync all slots and set `stopped` on the finished ones."""
        self.sync(self.slots)
        for slot in self.slots:
            self._check_finished(slot)

    def sync(self, slots: Sequence[BatchSlot]) -> None:
        """Copy the metrics of `slots` to the CPU. Waits for the device."""
        metrics, begin = self.optimizer.read_metrics(), 0
        for slot in self.slots:
            rows = slice(begin, begin + slot.config.restarts)
            begin = rows.stop
            if slot not in slots:
                continue
            slot.metrics = BatchMetrics(*(values[rows] for values in metrics))
            new_steps = slot.step - slot.synced_step
            if new_steps:
                columns = [(self.clock - new_steps + i) % CHECK_STEPS for i in range(new_steps)]
                slot.history_chunks.append(slot.metrics.window[:, columns].permute(1, 2, 0))
                slot.synced_step = slot.step

    def _check_finished(self, slot: BatchSlot) -> None:
        config, metrics = slot.config, slot.metrics
        if bool(slot.history_chunks[-1][-1, 0].isnan().all()):
            slot.stopped = "failed"
            slot.failure = f"the loss became NaN by step {slot.step}: try a rate below {config.rate:g}"
        elif config.stop_at is not None and float(metrics.best_reached[slot.best_row]) >= config.stop_at:
            slot.stopped = "stop_at"
        elif config.patience is not None and slot.step - 1 - int(metrics.last_fall.max()) >= config.patience:
            slot.stopped = "patience"
        elif slot.step >= config.steps:
            slot.stopped = "steps"

    def states(self) -> dict[str, TrainingState]:
        """Return the state of every slot, by key. Waits for the device."""
        self.sync(self.slots)
        return {slot.key: self.state(slot) for slot in self.slots}

    def state(self, slot: BatchSlot) -> TrainingState:
        """Return the state of a slot, which must just have been synced. Waits for the device."""
        begin = sum(other.config.restarts for other in self.slots[: self.slots.index(slot)])
        tensors = self.optimizer.export_rows(slice(begin, begin + slot.config.restarts), slot.tokens)
        tensors["history"] = slot.history().clone()
        return TrainingState(slot.step, slot.seconds, slot.tokens, tensors, threads=self.threads)


def _check_state(state: TrainingState, fresh: dict[str, Tensor]) -> None:
    """Raise ConfigError unless `state` is like `fresh`, the state of this run before its first step."""
    expected = {name: (tuple(rows.shape), rows.dtype) for name, rows in fresh.items()}
    expected["history"] = ((state.step, 3, len(fresh["vectors"])), fresh["recent"].dtype)
    for name, (shape, dtype) in expected.items():
        tensor = state.tensors.get(name)
        if tensor is None or tensor.shape != shape:
            raise other_state()
        if tensor.dtype != dtype:
            raise ConfigError(f"resume has the tensor {name!r} of {tensor.dtype}; expected {dtype}")
    if not state.tensors["best"].isfinite().all() or state.tensors["best_loss"].isnan().any():
        raise ConfigError("resume has best vectors or losses that are not finite. Resume from another state.")
    if not (state.tensors["best_step"] >= 0).logical_and(state.tensors["best_step"] < max(1, state.step)).all():
        raise other_state()


def other_state() -> ConfigError:
    return ConfigError(
        "resume is the state of a run with another text, model or settings. Pass the same ones as in that run."
    )
