"""The peer for soft prompts: a loop as textual inversion has it (Gal et al. 2022; diffusers' example).

AdamW of a constant rate on k vectors, the whole padded context computed every step, no hold on the norm, no contexts. Shapes: r soft prompts,
k tokens, w width, e embed_dim.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.bench.machine import synchronise
from softprompt.config import TrainConfig
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.objectives.pooled import encode_targets_in
from softprompt.training.init import init_vectors
from softprompt.training.optimizer import CHECK_STEPS

DEFAULT_RATE = 5e-4  # as diffusers' documentation runs it
RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)  # of which the tuned one is chosen
BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.01
MAX_TUNING_STEPS = 1000


class Inversion:
    """r descents at once from `start` (r, k, w) towards `targets` (r, e).

    `padded` computes the whole context, every position of every layer, as the loops do that it stands for; without, only the positions that
    matter, which gives the same vectors sooner, for figures in which time plays no part.
    """

    def __init__(
        self, encoder: TextEncoder, targets: Tensor, start: Tensor, rate: float, *, padded: bool = True
    ) -> None:
        self.encoder, self.rate = encoder, rate
        self.targets = F.normalize(targets.to(encoder.device, torch.float32), dim=-1)
        self.vectors = start.clone().requires_grad_()
        self.first, self.second = torch.zeros_like(start), torch.zeros_like(start)
        self.steps = 0
        r, k, _ = start.shape
        config, specials, tower = encoder.config, encoder.specials, encoder.tower
        self.frame = encoder.batch_rows([[-1 - i for i in range(k)]])
        self.padded = (
            padded and config.short and config.pooling != "cls"
        )  # else the frame computes the whole context anyway
        begin, end = len(specials.start), len(specials.start) + k
        pads = config.context - end - len(specials.end)
        table, positions = tower.table, tower.positions
        after = [*specials.end, *[specials.pad] * pads]
        self.before = (table[list(specials.start)] + positions[:begin]).expand(r, -1, -1)
        self.between = positions[begin:end]
        self.after = (table[after] + positions[end : config.context]).expand(r, -1, -1)

    def step(self) -> Tensor:
        """One step; (r,) the similarities of before it, on the device. Waits for nothing."""
        similarities = (F.normalize(self._outputs(), dim=-1) * self.targets).sum(-1)
        (gradient,) = torch.autograd.grad((1 - similarities).sum(), self.vectors)
        self._descend(gradient)
        return similarities.detach()

    def _outputs(self) -> Tensor:
        """(r, e)."""
        if not self.padded:
            return self.frame.outputs(self.vectors)[:, 0]
        tower = self.encoder.tower
        x = torch.cat([self.before, self.vectors.to(self.between.dtype) + self.between, self.after], dim=1)
        states = tower.final_norm(tower.states(x))
        return tower.project(states[:, int(self.frame.at[0])]).float()

    @torch.no_grad()
    def _descend(self, gradient: Tensor) -> None:
        """AdamW (Loshchilov & Hutter 2019). By hand: torch.optim imports torch's compiler, 1.5 s, on its first step."""
        self.steps += 1
        self.first.lerp_(gradient, 1 - BETAS[0])
        self.second.lerp_(gradient.square(), 1 - BETAS[1])
        mean, square = (m / (1 - beta**self.steps) for m, beta in zip((self.first, self.second), BETAS, strict=True))
        self.vectors.mul_(1 - self.rate * DECAY).sub_(self.rate * mean / (square.sqrt() + EPSILON))


@dataclass(frozen=True)
class Reached:
    """How a training towards a similarity went: from the text on, in seconds and steps."""

    reached: bool
    seconds: float
    steps: int


def reach(
    encoder: TextEncoder, text: str, config: TrainConfig, rate: float, at_least: float, steps: int, seconds: float
) -> Reached:
    """Trains until `at_least` is reached, or for so many steps or seconds; what has to be done before the first step is in the time."""
    synchronise(encoder.device)
    began = time.perf_counter()
    every = 1 if encoder.device.type == "cpu" else CHECK_STEPS  # as our own training asks the device
    assert config.tokens != "auto"
    prompt = tokenize_prompt(encoder, text)
    start = init_vectors(encoder, prompt, config, config.tokens, None)
    loop = Inversion(encoder, encode_targets_in(encoder, prompt, [ALONE]), start, rate)
    while True:
        similarity = loop.step()
        passed = time.perf_counter() - began
        over = loop.steps >= steps or passed >= seconds
        if (loop.steps % every == 0 or over) and (float(similarity) >= at_least or over):
            return Reached(float(similarity) >= at_least, time.perf_counter() - began, loop.steps)


def starts(encoder: TextEncoder, prompts: list[HardPrompt], config: TrainConfig) -> Tensor:
    """(r, k, w): what each prompt's training begins at, the same as ours."""
    assert config.tokens != "auto"
    return torch.cat([init_vectors(encoder, prompt, config, config.tokens, None) for prompt in prompts])


def after_steps(encoder: TextEncoder, texts: list[str], config: TrainConfig, rate: float) -> Tensor:
    """(r, k, w) the best vectors of each text within `config.steps` steps."""
    prompts = [tokenize_prompt(encoder, text) for text in texts]
    targets = torch.cat([encode_targets_in(encoder, prompt, [ALONE]) for prompt in prompts])
    loop = Inversion(encoder, targets, starts(encoder, prompts, config), rate, padded=False)
    best, most = loop.vectors.detach().clone(), torch.full((len(texts),), -1.0, device=encoder.device)
    for _ in range(config.steps):
        before = loop.vectors.detach().clone()
        similarities = loop.step()
        best = torch.where((similarities > most).view(-1, 1, 1), before, best)
        most = torch.maximum(most, similarities)
    return best


def tuned_rate(encoder: TextEncoder, texts: list[str], config: TrainConfig, at_least: float) -> float:
    """The rate of RATES that needs the fewest steps to the similarity, in the median over `texts`; the first of those that need as many."""
    prompts = [tokenize_prompt(encoder, text) for text in texts]
    targets = torch.cat([encode_targets_in(encoder, prompt, [ALONE]) for prompt in prompts])
    start = starts(encoder, prompts, config)
    best, least = RATES[0], float(MAX_TUNING_STEPS)
    for rate in RATES:
        loop = Inversion(encoder, targets, start, rate, padded=False)
        needed = torch.full((len(texts),), float(MAX_TUNING_STEPS))
        # no rate is given more steps than the best so far needed
        while loop.steps < least and median(needed.tolist()) >= least:
            there = (loop.step() >= at_least).cpu()
            needed = torch.where(there & (needed >= MAX_TUNING_STEPS), float(loop.steps), needed)
        if median(needed.tolist()) < least:
            best, least = rate, median(needed.tolist())
    return best
