"""Adam for many independent soft prompts in one tensor.

The state tensors stay on the device and change in place until rows are added or removed; the schedule is on the CPU.
Only `read_metrics` and `export_rows` wait for the device. Source: Kingma & Ba 2015 (Adam); limiting the norm to the
vocabulary's mean norm is this project's own.

Shapes: R rows, k soft tokens, w width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CHECK_STEPS = 10  # steps between two reads from the device; each read waits for a GPU
BETAS, EPSILON = (0.9, 0.98), 1e-8
MIN_PROGRESS = 1e-3  # relative decrease of the loss that resets patience


class RowSchedule(NamedTuple):
    """The schedule of each row, on the CPU: (R,) each."""

    step: Tensor  # steps taken
    steps: Tensor  # steps in total
    rate: Tensor  # the initial learning rate
    max_norm: Tensor  # maximum norm of a soft token


class BatchMetrics(NamedTuple):
    """The metrics of each row, copied to the CPU: (R,) unless noted otherwise."""

    best: Tensor  # (R, k, w) the vectors with the lowest loss
    best_loss: Tensor
    best_reached: Tensor  # the lower of similarity and composed similarity at the best step
    best_step: Tensor
    last_fall: Tensor  # the last step that lowered the loss by MIN_PROGRESS
    window: Tensor  # (R, CHECK_STEPS, 3) loss, similarity, composed similarity of the last steps


class BatchedAdam:
    """Adam over R rows, each with its own moments, schedule and best vectors. `tensors` maps STATE_KEYS to (R, ...)."""

    # the complete state of a row: a run resumed from it gives identical bits
    STATE_KEYS = (
        "vectors",
        "first",
        "second",
        "recent",
        "seen",
        "best",
        "best_loss",
        "best_reached",
        "best_step",
        "fallen_to",
        "last_fall",
    )

    def __init__(self, device: torch.device, k: int, width: int, turns: int, similarity_varies: bool = False) -> None:
        self.device, self.turns, self.similarity_varies = device, turns, similarity_varies
        no_rows = init_rows(torch.empty(0, k, width, device=device), turns)
        self.tensors = no_rows
        self.window = torch.empty(0, CHECK_STEPS, 3, device=device)
        empty = torch.empty(0)
        self.schedule = RowSchedule(empty.long(), empty.long(), empty, empty)
        self._rebuild()

    @property
    def vectors(self) -> Tensor:
        """The vectors being trained, (R, k, w)."""
        return self.tensors["vectors"]

    def add_rows(self, rows: Sequence[dict[str, Tensor]], schedules: Sequence[RowSchedule]) -> None:
        """Append rows from `init_rows` (new) or `export_rows` (saved)."""
        k, tensors = self.vectors.shape[1], {}
        for name, current in self.tensors.items():
            parts = [current.detach()]
            for row in rows:
                added = row[name].to(self.device)
                if added.ndim == 3 and name != "recent":  # pad to the batch's largest k
                    added = F.pad(added, (0, 0, 0, k - added.shape[1]))
                parts.append(added)
            tensors[name] = torch.cat(parts)
        count = len(tensors["vectors"]) - len(self.window)
        new_window = self.window.new_full((count, CHECK_STEPS, 3), math.nan)
        self.window, self.tensors = torch.cat([self.window, new_window]), tensors
        self.schedule = RowSchedule(*(torch.cat(parts) for parts in zip(self.schedule, *schedules, strict=True)))
        self._rebuild()

    def keep_rows(self, rows: list[int]) -> None:
        """Keep only the rows with these indices."""
        index = torch.tensor(rows, dtype=torch.long)
        device_index = index.to(self.device)
        self.tensors = {name: tensor.detach()[device_index] for name, tensor in self.tensors.items()}
        self.window = self.window[device_index]
        self.schedule = RowSchedule(*(values[index] for values in self.schedule))
        self._rebuild()

    def export_rows(self, rows: slice, k: int) -> dict[str, Tensor]:
        """Return the state of `rows`, which have `k` soft tokens, on the CPU. Waits for the device."""
        state = {name: tensor.detach()[rows].cpu().clone() for name, tensor in self.tensors.items()}
        return {
            name: value[:, :k].clone() if value.ndim == 3 and name != "recent" else value
            for name, value in state.items()
        }

    def _rebuild(self) -> None:
        self.max_norm = self.schedule.max_norm.to(self.device).view(-1, 1, 1)
        # (3, R) learning rate / first bias correction, 1 / second bias correction, step
        self.row_scalars = torch.zeros(3, len(self.vectors), device=self.device)
        self.indices = torch.zeros(2, dtype=torch.long, device=self.device)  # turn and column of the window
        self.upcoming: list[tuple[Tensor, Tensor]] = []
        self.vectors.requires_grad_()

    def advance_schedule(self, clock: int) -> None:
        """Update the learning rates and indices for this step, in place."""
        if not self.upcoming:
            self.upcoming = self._precompute_schedule(clock)
        row_scalars, indices = self.upcoming.pop()
        self.row_scalars.copy_(row_scalars)
        self.indices.copy_(indices)
        self.schedule.step.add_(1)

    def _precompute_schedule(self, clock: int) -> list[tuple[Tensor, Tensor]]:
        """Return the row scalars and indices of all steps up to the next check, last step first.

        Computing them at every step took 3 % of a small step's time. The whole interval is always computed, even after
        a resume, because a number's rounding can depend on its position in the tensor, and a resumed run must give
        identical bits.
        """
        _, steps, rate, _ = self.schedule
        offset = clock % CHECK_STEPS
        delta = torch.arange(-offset, CHECK_STEPS - offset).unsqueeze(1)
        step = self.schedule.step + delta
        rates = rate * (1 + torch.cos(math.pi * step / steps)) / 2
        first_correction, second_correction = (1 - beta ** (step + 1.0) for beta in BETAS)
        scalars = torch.stack([rates / first_correction, 1 / second_correction, step.float()], dim=1).to(
            self.device, non_blocking=True
        )
        indices = torch.cat([(clock + delta) % self.turns, (clock + delta) % CHECK_STEPS], dim=1).to(
            self.device, non_blocking=True
        )
        return list(zip(scalars[offset:], indices[offset:], strict=True))[::-1]

    def step(self, loss: Tensor, similarity: Tensor, composed: Tensor) -> None:
        """Update every row from the loss, similarity and composed similarity of the current vectors, (R,) each."""
        (gradient,) = torch.autograd.grad(loss.sum(), self.vectors)
        with torch.no_grad():
            self._update_metrics(loss, similarity, composed)
            self._update_vectors(gradient)
            self.vectors.copy_(clip_norm(self.vectors, self.max_norm))

    def _update_metrics(self, loss: Tensor, similarity: Tensor, composed: Tensor) -> None:
        t = self.tensors
        step = self.row_scalars[2]
        t["recent"].index_copy_(1, self.indices[:1], torch.stack([loss, similarity, composed], dim=-1).unsqueeze(1))
        t["seen"].index_fill_(1, self.indices[:1], 1.0)
        # the mean over the turns so far, so that every context counts
        smooth = t["recent"].sum(1) / t["seen"].sum(1, keepdim=True)
        if not self.similarity_varies:
            smooth[:, 1] = similarity
        self.window.index_copy_(1, self.indices[1:], smooth.unsqueeze(1))
        smooth_loss = smooth[:, 0]
        better = smooth_loss < t["best_loss"]  # false for NaN
        fell = smooth_loss < t["fallen_to"] * (1 - MIN_PROGRESS)
        _copy_where(t["fallen_to"], fell, smooth_loss)
        _copy_where(t["last_fall"], fell, step)
        _copy_where(t["best_loss"], better, smooth_loss)
        _copy_where(t["best_step"], better, step)
        _copy_where(t["best_reached"], better, smooth[:, 1:].amin(-1))
        _copy_where(t["best"], better.view(-1, 1, 1), t["vectors"])

    def _update_vectors(self, gradient: Tensor) -> None:
        # not torch.optim: it has no step count per row, and its first step imports torch's compiler, which takes 1.5 s
        t = self.tensors
        corrected_rate, inverse_second_correction, *_ = (scalars.view(-1, 1, 1) for scalars in self.row_scalars)
        t["first"].lerp_(gradient, 1 - BETAS[0])
        t["second"].lerp_(gradient.square(), 1 - BETAS[1])
        t["vectors"].sub_(corrected_rate * t["first"] / ((t["second"] * inverse_second_correction).sqrt_() + EPSILON))

    def read_metrics(self) -> BatchMetrics:
        """Copy the metrics of all rows to the CPU. Waits for the device."""
        t = self.tensors
        loss, reached, step, fall = torch.stack(
            [t[name] for name in ("best_loss", "best_reached", "best_step", "last_fall")]
        ).cpu()
        return BatchMetrics(t["best"].cpu().clone(), loss, reached, step, fall, self.window.cpu().clone())


def clip_norm(vectors: Tensor, max_norm: Tensor | float) -> Tensor:
    """Shorten each vector of `vectors` (R, k, w) whose norm exceeds `max_norm`."""
    clipped: Tensor = vectors * (max_norm / vectors.norm(dim=-1, keepdim=True)).clamp(max=1)
    return clipped


def init_rows(start: Tensor, turns: int) -> dict[str, Tensor]:
    """Return the state of new rows that begin with the vectors `start` (R, k, w)."""
    r = len(start)
    zeros, infinity = start.new_zeros(r), start.new_full((r,), math.inf)
    return {
        "vectors": start.clone(),
        "first": torch.zeros_like(start),
        "second": torch.zeros_like(start),
        "recent": start.new_zeros(r, turns, 3),  # loss and similarities at the latest step of each turn
        "seen": start.new_zeros(r, turns),  # 1 for turns that have had a step
        "best": start.clone(),
        "best_loss": infinity,
        "best_reached": -infinity,
        "best_step": zeros,
        "fallen_to": infinity.clone(),
        "last_fall": zeros.clone(),
    }


def _copy_where(destination: Tensor, mask: Tensor, source: Tensor) -> None:
    destination.copy_(torch.where(mask, source, destination))
