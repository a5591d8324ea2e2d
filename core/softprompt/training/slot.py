"""One training among many: what it is asked for, what it is compared with, where it is, and what it came to.

Shapes: r restarts, k soft tokens, w width, b contexts (the prompt alone first), e embed_dim.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import TrainConfig
from softprompt.encoders.clip.rows import Read
from softprompt.objectives.base import HardPrompt
from softprompt.training.optimizer import Figures
from softprompt.training.task import Trained


@dataclass(frozen=True)
class Look:
    """What one turn compares a member with: targets (b, e), weights of the loss and of the mean in contexts (b,), hidden states.

    Of several rows at once, each has one dimension more before these.
    """

    targets: Tensor
    weights: Tensor
    composed: Tensor
    hidden: Read | None

    @cached_property
    def directions(self) -> Tensor:
        """The targets, of unit length."""
        return F.normalize(self.targets, dim=-1)


class Member:
    """One training in a pool. `stopped` says why it is over, and is empty while it goes on."""

    def __init__(
        self, prompt: HardPrompt, config: TrainConfig, looks: list[Look], skipped: tuple[str, ...], key: str = ""
    ) -> None:
        assert config.tokens != "auto"  # only train and iter_train find the number
        self.prompt, self.config, self.looks, self.skipped = prompt, config, looks, skipped
        self.tokens, self.key = config.tokens, key
        self.step, self.before = 0, 0.0
        self.began, self.ended = time.perf_counter(), 0.0
        self.stopped = self.failure = ""
        r = config.restarts
        self.history: list[Tensor] = []  # (steps, 3, r) in parts
        self.read_to = 0
        none = torch.full((r,), math.inf)
        self.at = Figures(
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

    def trained(self, device: str) -> Trained:
        """What it came to by what was read back last."""
        history = self.figures()[:, :, self.leader]
        history = history[history[:, 0].isfinite()]
        return Trained(
            vectors=self.vectors,
            losses=history[:, 0].clone(),
            similarities=history[:, 1].clone(),
            loss=float(self.at.best_loss[self.leader]),
            steps=self.step,
            seconds=self.seconds,
            stopped=self.stopped or "interrupted",
            skipped=self.skipped,
            device=device,
            failure=self.failure,
        )
