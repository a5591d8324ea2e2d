"""The peer for soft prompts: a textual inversion loop (Gal et al. 2022; the diffusers example).

It runs AdamW with a constant rate on k vectors, computes every position up to the context length at every step, and has
neither a norm limit nor contexts. Shapes: r soft prompts, k tokens, w width, e embed_dim.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.bench.machine import synchronize
from softprompt.config import TrainConfig
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.objectives.pooled import encode_target
from softprompt.training.init import init_vectors
from softprompt.training.optimizer import CHECK_STEPS

DEFAULT_RATE = 5e-4  # from the diffusers documentation
RATES = (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)  # the grid for the tuned rate
BETAS, EPSILON, DECAY = (0.9, 0.999), 1e-8, 0.01
MAX_TUNING_STEPS = 1000


class Inversion:
    """Textual inversion of r prompts at once, from `start` (r, k, w) towards `targets` (r, e).

    With `padded`, a step computes every position up to the context length in every layer, as the original loop does.
    Otherwise it computes only the positions that matter, with the same result, for uses that do not measure time.
    """

    def __init__(
        self, encoder: TextEncoder, targets: Tensor, start: Tensor, rate: float, *, padded: bool = True
    ) -> None:
        self.encoder, self.rate = encoder, rate
        self.targets = F.normalize(targets.to(encoder.device, torch.float32), dim=-1)
        self.vectors = start.clone().requires_grad_()
        self.first_moment, self.second_moment = torch.zeros_like(start), torch.zeros_like(start)
        self.steps = 0
        r, k, _ = start.shape
        config, specials, tower = encoder.config, encoder.specials, encoder.tower
        self.token_batch = encoder.batch_rows([[-1 - i for i in range(k)]])
        # for other encoders, the token batch computes every position itself
        self.padded = padded and config.ignores_padding and config.pooling != "cls"
        begin, end = len(specials.start), len(specials.start) + k
        pads = config.context - end - len(specials.end)
        table, positions = tower.table, tower.positions
        after_ids = [*specials.end, *[specials.pad] * pads]
        self.before = (table[list(specials.start)] + positions[:begin]).expand(r, -1, -1)
        self.soft_positions = positions[begin:end]
        self.after = (table[after_ids] + positions[end : config.context]).expand(r, -1, -1)

    def step(self) -> Tensor:
        """Take one step. Returns the similarities (r,) before the step, on the device. Does not wait for the device."""
        similarities = (F.normalize(self._outputs(), dim=-1) * self.targets).sum(-1)
        (gradient,) = torch.autograd.grad((1 - similarities).sum(), self.vectors)
        self._update_vectors(gradient)
        return similarities.detach()

    def _outputs(self) -> Tensor:
        """Return the pooled outputs (r, e)."""
        if not self.padded:
            return self.token_batch.outputs(self.vectors)[:, 0]
        tower = self.encoder.tower
        x = torch.cat(
            [self.before, self.vectors.to(self.soft_positions.dtype) + self.soft_positions, self.after], dim=1
        )
        states = tower.final_norm(tower.states(x))
        return tower.project(states[:, int(self.token_batch.pooled_at[0])]).float()

    @torch.no_grad()
    def _update_vectors(self, gradient: Tensor) -> None:
        """Apply AdamW (Loshchilov & Hutter 2019). torch.optim would take 1.5 s to import torch's compiler."""
        self.steps += 1
        self.first_moment.lerp_(gradient, 1 - BETAS[0])
        self.second_moment.lerp_(gradient.square(), 1 - BETAS[1])
        first, second = (
            moment / (1 - beta**self.steps)
            for moment, beta in zip((self.first_moment, self.second_moment), BETAS, strict=True)
        )
        self.vectors.mul_(1 - self.rate * DECAY).sub_(self.rate * first / (second.sqrt() + EPSILON))


@dataclass(frozen=True)
class GoalResult:
    """The result of training up to a similarity. `seconds` includes the preparation."""

    reached: bool
    seconds: float
    steps: int


def train_to_goal(
    encoder: TextEncoder, text: str, config: TrainConfig, rate: float, at_least: float, steps: int, seconds: float
) -> GoalResult:
    """Train until the similarity is at least `at_least`, for at most `steps` and `seconds`, preparation included."""
    synchronize(encoder.device)
    started_at = time.perf_counter()
    read_steps = 1 if encoder.device.type == "cpu" else CHECK_STEPS  # as often as our training reads from the device
    assert config.tokens != "auto"
    prompt = tokenize_prompt(encoder, text)
    start = init_vectors(encoder, prompt, config, config.tokens, None)
    loop = Inversion(encoder, encode_target(encoder, prompt, [ALONE]), start, rate)
    while True:
        similarity = loop.step()
        elapsed = time.perf_counter() - started_at
        is_over = loop.steps >= steps or elapsed >= seconds
        if (loop.steps % read_steps == 0 or is_over) and (float(similarity) >= at_least or is_over):
            return GoalResult(float(similarity) >= at_least, time.perf_counter() - started_at, loop.steps)


def init_starts(encoder: TextEncoder, prompts: list[HardPrompt], config: TrainConfig) -> Tensor:
    """Return the start vectors (r, k, w) that our training would use."""
    assert config.tokens != "auto"
    return torch.cat([init_vectors(encoder, prompt, config, config.tokens, None) for prompt in prompts])


def train_for_steps(encoder: TextEncoder, texts: list[str], config: TrainConfig, rate: float) -> Tensor:
    """Return the best vectors (r, k, w) for each text within `config.steps` steps."""
    prompts = [tokenize_prompt(encoder, text) for text in texts]
    targets = torch.cat([encode_target(encoder, prompt, [ALONE]) for prompt in prompts])
    loop = Inversion(encoder, targets, init_starts(encoder, prompts, config), rate, padded=False)
    best, best_similarity = loop.vectors.detach().clone(), torch.full((len(texts),), -1.0, device=encoder.device)
    for _ in range(config.steps):
        vectors = loop.vectors.detach().clone()
        similarities = loop.step()
        best = torch.where((similarities > best_similarity).view(-1, 1, 1), vectors, best)
        best_similarity = torch.maximum(best_similarity, similarities)
    return best


def tune_rate(encoder: TextEncoder, texts: list[str], config: TrainConfig, at_least: float) -> float:
    """Return the rate in RATES that takes the fewest steps to the similarity `at_least` (median over `texts`).

    The lowest rate wins a tie.
    """
    prompts = [tokenize_prompt(encoder, text) for text in texts]
    targets = torch.cat([encode_target(encoder, prompt, [ALONE]) for prompt in prompts])
    start = init_starts(encoder, prompts, config)
    best_rate, best_steps = RATES[0], float(MAX_TUNING_STEPS)
    for rate in RATES:
        loop = Inversion(encoder, targets, start, rate, padded=False)
        steps = torch.full((len(texts),), float(MAX_TUNING_STEPS))
        # no rate gets more steps than the best rate so far needed
        while loop.steps < best_steps and median(steps.tolist()) >= best_steps:
            reached = (loop.step() >= at_least).cpu()
            steps = torch.where(reached & (steps >= MAX_TUNING_STEPS), float(loop.steps), steps)
        if median(steps.tolist()) < best_steps:
            best_rate, best_steps = rate, median(steps.tolist())
    return best_rate
