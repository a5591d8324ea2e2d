"""One training run inside a batch: its configuration, target, progress and result.

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
    """One training run in a batch, with one row per restart. `stopped` is "" until the run ends, then the reason."""

    def __init__(self, prompt: HardPrompt, config: TrainConfig, target: Target, key: str = "") -> None:
        assert config.tokens != "auto"  # only train and iter_train resolve "auto"
        self.prompt, self.config, self.target = prompt, config, target
        self.tokens, self.key = config.tokens, key
        self.step, self.seconds_before = 0, 0.0
        self.started_at, self.finished_at = time.perf_counter(), 0.0
        self.stopped = self.failure = ""
        r = config.restarts
        self.history_chunks: list[Tensor] = []  # (steps, 3, r) each
        self.synced_step = 0  # the step of the last sync, where the history ends
        infinity = torch.full((r,), math.inf)
        self.metrics = BatchMetrics(
            torch.empty(r, self.tokens, 0), infinity, -infinity, torch.zeros(r), torch.zeros(r), torch.empty(r, 0, 3)
        )  # at the last sync

    @property
    def seconds(self) -> float:
        return self.seconds_before + (self.finished_at or time.perf_counter()) - self.started_at

    @property
    def best_row(self) -> int:
        """The restart with the lowest loss."""
        return int(self.metrics.best_loss.argmin())

    @property
    def vectors(self) -> Tensor:
        """The best vectors so far, (k, w)."""
        return self.metrics.best[self.best_row, : self.tokens].clone()

    def history(self) -> Tensor:
        """Return loss, similarity and composed similarity of every step up to the last sync, (steps, 3, r)."""
        if len(self.history_chunks) > 1:
            self.history_chunks = [torch.cat(self.history_chunks)]
        return self.history_chunks[0] if self.history_chunks else torch.empty(0, 3, self.config.restarts)

    def result(self, device: str) -> TrainingResult:
        """Return the result as of the last sync. Its history omits steps whose loss is not finite."""
        history = self.history()[:, :, self.best_row]
        history = history[history[:, 0].isfinite()]
        return TrainingResult(
            vectors=self.vectors,
            losses=history[:, 0].clone(),
            similarities=history[:, 1].clone(),
            loss=float(self.metrics.best_loss[self.best_row]),
            steps=self.step,
            seconds=self.seconds,
            stopped=self.stopped or "interrupted",
            skipped=self.target.skipped,
            device=device,
            failure=self.failure,
        )
