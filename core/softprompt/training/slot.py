"""One training among many: what it is asked for, what it is compared with, where it is, and what it came to.

Shapes: r restarts, k soft tokens, w width.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.objectives.base import HardPrompt, Target
from softprompt.training.optimizer import BatchMetrics
from softprompt.training.task import TrainingResult


class BatchSlot:
    """One training in a pool. `stopped` says why it is over, and is empty while it goes on."""

    def __init__(self, prompt: HardPrompt, config: TrainConfig, target: Target, key: str = "") -> None:
        assert config.tokens != "auto"  # only train and iter_train find the number
        self.prompt, self.config, self.target = prompt, config, target
        self.tokens, self.key = config.tokens, key
        self.step, self.before = 0, 0.0
        self.began, self.ended = time.perf_counter(), 0.0
        self.stopped = self.failure = ""
        r = config.restarts
        self.history: list[Tensor] = []  # (steps, 3, r) in parts
        self.read_to = 0
        none = torch.full((r,), math.inf)
        self.at = BatchMetrics(
            torch.empty(r, self.tokens, 0), none, -none, torch.zeros(r), torch.zeros(r), torch.empty(r, 0, 3)
        )  # as of the last read

    @property
    def seconds(self) -> float:
        return self.before + (self.ended or time.perf_counter()) - self.began

    @property
    def leader(self) -> int:
        """The restart with the least loss."""
        return int(self.at.best_loss.argmin())

    @property
    def vectors(self) -> Tensor:
        """(k, w) the best so far."""
        return self.at.best[self.leader, : self.tokens].clone()

    def figures(self) -> Tensor:
        """(steps, 3, r) loss, similarity alone and mean similarity in contexts, as far as they were read back."""
        if len(self.history) > 1:
            self.history = [torch.cat(self.history)]
        return self.history[0] if self.history else torch.empty(0, 3, self.config.restarts)

    def trained(self, device: str) -> TrainingResult:
        """What it came to by what was read back last."""
        history = self.figures()[:, :, self.leader]
        history = history[history[:, 0].isfinite()]
        return TrainingResult(
            vectors=self.vectors,
            losses=history[:, 0].clone(),
            similarities=history[:, 1].clone(),
            loss=float(self.at.best_loss[self.leader]),
            steps=self.step,
            seconds=self.seconds,
            stopped=self.stopped or "interrupted",
            skipped=self.target.skipped,
            device=device,
            failure=self.failure,
        )
