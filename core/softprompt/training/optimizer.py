"""Gradient descent on rows of soft tokens: their vectors, Adam's moments, the best of each row, the figures of the last steps.

Shapes: R rows, k soft tokens, w width, t turns of contexts that take their turn. Everything lies on the device and is changed in place; only
`read` waits for it. Source: Kingma & Ba 2015 (Adam); the projection onto the vocabulary's norm is this project's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

CHECK_STEPS = 10  # how often the device is asked how far it is; on cuda each question waits for it
BETAS, EPSILON = (0.9, 0.98), 1e-8
MIN_PROGRESS = 1e-3  # of the loss: what patience counts as a fall


class RowSchedule(NamedTuple):
    """Of each row, on the cpu: steps taken and in all, the first step's rate, the most norm of a soft token."""

    step: Tensor
    steps: Tensor
    rate: Tensor
    ceiling: Tensor


class BatchMetrics(NamedTuple):
    """Read back: (R,) each, and the `window` (R, CHECK_STEPS, 3) of loss, similarity alone, mean similarity in contexts by step."""

    best: Tensor
    best_loss: Tensor
    best_reached: Tensor
    best_step: Tensor
    last_fall: Tensor
    window: Tensor


class BatchedAdam:
    """Rows that descend together. `tensors` has for each name of STATE one tensor, whose first dimension are the rows."""

    # what a row is: with it, a descent goes on to the same bits
    STATE = (
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

    def __init__(self, device: torch.device, k: int, width: int, turns: int) -> None:
        self.device, self.turns = device, turns
        empty = init_rows(torch.empty(0, k, width, device=device), turns)
        self.tensors = empty
        self.window = torch.empty(0, CHECK_STEPS, 3, device=device)
        none = torch.empty(0)
        self.schedule = RowSchedule(none.long(), none.long(), none, none)
        self._rebuild()

    @property
    def vectors(self) -> Tensor:
        """(R, k, w), which gradients are taken of."""
        return self.tensors["vectors"]

    def add(self, rows: Sequence[dict[str, Tensor]], schedules: Sequence[RowSchedule]) -> None:
        """Adds rows, as `fresh` makes them or as `taken` found them."""
        k, joined = self.vectors.shape[1], {}
        for name, mine in self.tensors.items():
            parts = [mine.detach()]
            for one in rows:
                theirs = one[name].to(self.device)
                if theirs.ndim == 3 and name != "recent":  # fewer soft tokens than others have, perhaps
                    theirs = F.pad(theirs, (0, 0, 0, k - theirs.shape[1]))
                parts.append(theirs)
            joined[name] = torch.cat(parts)
        count = len(joined["vectors"]) - len(self.window)
        added = self.window.new_full((count, CHECK_STEPS, 3), math.nan)
        self.window, self.tensors = torch.cat([self.window, added]), joined
        self.schedule = RowSchedule(*(torch.cat(parts) for parts in zip(self.schedule, *schedules, strict=True)))
        self._rebuild()

    def keep(self, rows: list[int]) -> None:
        """Keeps these rows, and lets the others go."""
        kept = torch.tensor(rows, dtype=torch.long)
        on_device = kept.to(self.device)
        self.tensors = {name: mine.detach()[on_device] for name, mine in self.tensors.items()}
        self.window = self.window[on_device]
        self.schedule = RowSchedule(*(values[kept] for values in self.schedule))
        self._rebuild()

    def export_rows(self, rows: slice, k: int) -> dict[str, Tensor]:
        """What rows of `k` soft tokens are, on the cpu. Waits for the device."""
        found = {name: mine.detach()[rows].cpu().clone() for name, mine in self.tensors.items()}
        return {
            name: value[:, :k].clone() if value.ndim == 3 and name != "recent" else value
            for name, value in found.items()
        }

    def _rebuild(self) -> None:
        self.ceiling = self.schedule.ceiling.to(self.device).view(-1, 1, 1)
        self.numbers = torch.zeros(3, len(self.vectors), device=self.device)
        self.at = torch.zeros(2, dtype=torch.long, device=self.device)  # the turn, and the place in the window
        self.ahead: list[tuple[Tensor, Tensor]] = []
        self.vectors.requires_grad_()

    def advance_schedule(self, clock: int) -> None:
        """What this step's update needs to know, put where the device finds it."""
        if not self.ahead:
            self.ahead = self._look_ahead(clock)
        numbers, at = self.ahead.pop()
        self.numbers.copy_(numbers)
        self.at.copy_(at)
        self.schedule.step.add_(1)

    def _look_ahead(self, clock: int) -> list[tuple[Tensor, Tensor]]:
        """The numbers of the steps until the next look at the device, there, the first of them last: one by one they took 3 % of a small step.

        They are always computed from one look to the next, whichever step is the first that is needed: where in a tensor a number stands decides
        how it is rounded, and going on from a state must come to the same bits.
        """
        _, steps, rate, _ = self.schedule
        begun = clock % CHECK_STEPS
        after = torch.arange(-begun, CHECK_STEPS - begun).unsqueeze(1)
        step = self.schedule.step + after
        rates = rate * (1 + torch.cos(math.pi * step / steps)) / 2
        first, second = (1 - beta ** (step + 1.0) for beta in BETAS)
        numbers = torch.stack([rates / first, 1 / second, step.float()], dim=1).to(self.device, non_blocking=True)
        at = torch.cat([(clock + after) % self.turns, (clock + after) % CHECK_STEPS], dim=1).to(
            self.device, non_blocking=True
        )
        return list(zip(numbers[begun:], at[begun:], strict=True))[::-1]

    def step(self, losses: Tensor, alone: Tensor, composed: Tensor) -> None:
        """One update from the present vectors' `losses`, similarities `alone` and means `composed` in contexts, (R,) each."""
        (gradient,) = torch.autograd.grad(losses.sum(), self.vectors)
        with torch.no_grad():
            self._remember(losses, alone, composed)
            self._descend(gradient)
            self.vectors.copy_(clip_norm(self.vectors, self.ceiling))

    def _remember(self, losses: Tensor, alone: Tensor, composed: Tensor) -> None:
        t = self.tensors
        step = self.numbers[2]
        t["recent"].index_copy_(1, self.at[:1], torch.stack([losses, alone, composed], dim=-1).unsqueeze(1))
        t["seen"].index_fill_(1, self.at[:1], 1.0)
        smooth = t["recent"].sum(1) / t["seen"].sum(1, keepdim=True)  # over the turns, so that all contexts count
        smooth[:, 1] = alone
        self.window.index_copy_(1, self.at[1:], smooth.unsqueeze(1))
        loss = smooth[:, 0]
        better = loss < t["best_loss"]  # false for a loss that is no number
        fell = loss < t["fallen_to"] * (1 - MIN_PROGRESS)
        _where_copy(t["fallen_to"], fell, loss)
        _where_copy(t["last_fall"], fell, step)
        _where_copy(t["best_loss"], better, loss)
        _where_copy(t["best_step"], better, step)
        _where_copy(t["best_reached"], better, smooth[:, 1:].amin(-1))
        _where_copy(t["best"], better.view(-1, 1, 1), t["vectors"])

    def _descend(self, gradient: Tensor) -> None:
        """By hand: torch.optim imports torch's compiler, 1.5 s, on its first step, and knows no rows of different age."""
        t = self.tensors
        rate, of_second, *_ = (numbers.view(-1, 1, 1) for numbers in self.numbers)
        t["first"].lerp_(gradient, 1 - BETAS[0])
        t["second"].lerp_(gradient.square(), 1 - BETAS[1])
        t["vectors"].sub_(rate * t["first"] / ((t["second"] * of_second).sqrt_() + EPSILON))

    def read(self) -> BatchMetrics:
        """How far the rows are, on the cpu. Waits for the device."""
        t = self.tensors
        loss, reached, step, fall = torch.stack(
            [t[name] for name in ("best_loss", "best_reached", "best_step", "last_fall")]
        ).cpu()
        return BatchMetrics(t["best"].cpu().clone(), loss, reached, step, fall, self.window.cpu().clone())


def clip_norm(vectors: Tensor, ceiling: Tensor | float) -> Tensor:
    """Vectors (R, k, w), those longer than `ceiling` shortened to it."""
    shortened: Tensor = vectors * (ceiling / vectors.norm(dim=-1, keepdim=True)).clamp(max=1)
    return shortened


def init_rows(start: Tensor, turns: int) -> dict[str, Tensor]:
    """Rows that begin at `start` (R, k, w)."""
    r = len(start)
    zeros, none = start.new_zeros(r), start.new_full((r,), math.inf)
    return {
        "vectors": start.clone(),
        "first": torch.zeros_like(start),
        "second": torch.zeros_like(start),
        "recent": start.new_zeros(r, turns, 3),  # the figures of each turn's last step
        "seen": start.new_zeros(r, turns),  # 1 for those that there was one of
        "best": start.clone(),
        "best_loss": none,
        "best_reached": -none,
        "best_step": zeros,
        "fallen_to": none.clone(),
        "last_fall": zeros.clone(),
    }


def _where_copy(there: Tensor, where: Tensor, value: Tensor) -> None:
    there.copy_(torch.where(where, value, there))
