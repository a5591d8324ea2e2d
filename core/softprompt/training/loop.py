"""One training: gradient descent on a few input embeddings of a frozen text encoder, watched step by step.

It is a pool of one (softprompt.training.batch). Shapes: r restarts, k soft tokens, w width. Sources: Lester et al. 2021 (prompt tuning), Gal et al.
2022 (textual inversion); norm projection and context training are this project's own.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, TrainingFailed, no_start, reason
from softprompt.objectives.pooled import HardPrompt
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.training.batch import Pool, check_tokens
from softprompt.training.slot import Member, Trained, TrainState

# every so many steps, or what says after each step whether a report is due; it costs no report and no wait for the device
Interval = int | Callable[[int], bool]


@dataclass(frozen=True)
class Report:
    """How far a training is. loss and similarity are the leading restart's at this step, the others the best so far.

    `state` captures the training as it is at this report; it must be called before the training goes on.
    """

    step: int
    steps: int
    loss: float
    similarity: float
    best_loss: float
    best_similarity: float
    seconds: float
    vectors: Tensor  # (k, w) on the cpu: the best so far
    restarts: tuple[float, ...]  # every restart's loss at this step; () where there is only one
    state: Callable[[], TrainState] = field(repr=False)

    @property
    def steps_per_second(self) -> float:
        return self.step / self.seconds if self.seconds else 0.0


def start_tensor(encoder: TextEncoder, start: SoftPrompt | Array | Tensor | None) -> Tensor | None:
    """(k, width) on the cpu. Raises ConfigError for a soft prompt of other weights, whose vectors mean nothing here."""
    if isinstance(start, SoftPrompt):
        encoder.check_belongs(start)
        start = start.vectors
    return None if start is None else torch.asarray(start, copy=True)


def start_vectors(encoder: TextEncoder, prompt: HardPrompt, config: TrainConfig, k: int, soft: Tensor | None) -> Tensor:
    """(r, k, w) float32 on the encoder's device; the randomness comes from the cpu, so that every device starts alike."""
    rng = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(config.restarts, k, encoder.width, generator=rng).to(encoder.device) * encoder.token_std
    if soft is not None and config.init != "soft":
        raise ConfigError(f"a soft prompt to begin from was given, but init is {config.init!r}: set init to 'soft'")
    if config.init == "noise":
        return noise
    if config.init == "vocabulary":
        chosen = torch.randint(len(encoder.ordinary_ids), (config.restarts, k), generator=rng)
        return encoder.tower.table[encoder.ordinary_ids[chosen.to(encoder.device)]].float()
    if config.init == "prompt":
        soft = encoder.embed([token for piece in prompt.pieces for token in piece])
        if len(soft) > k:  # spread over the prompt
            soft = soft[torch.linspace(0, len(soft) - 1, k).round().long().to(soft.device)]
    elif soft is None or soft.ndim != 2 or soft.shape[-1] != encoder.width:
        had = "none was given" if soft is None else f"the one given has the shape {tuple(soft.shape)}"
        raise no_start(had, f"width {encoder.width}")
    start = noise.clone()  # soft tokens beyond those given begin as noise
    start[:, : len(soft)] = soft[:k].to(start)
    start[1:, : len(soft)] += 0.3 * noise[1:, : len(soft)]  # restarts beside the first must differ from it
    return start


def descend(
    encoder: TextEncoder,
    prompt: HardPrompt,
    config: TrainConfig,
    *,
    start: Tensor | None = None,
    interval: Interval = 10,
    resume: TrainState | None = None,
) -> Generator[Report, bool | None, Trained]:
    """Trains, yields a Report every `interval` (and at the end), returns a Trained. Sending True stops it.

    `start` (k, w) is what init "soft" begins from; `resume` is a state to go on from. A loss that is no number, or a device
    that fails, ends it with the best until then and `failure` set. Raises ConfigError for more soft tokens than fit,
    TrainingFailed where not one step is possible.
    """
    if config.tokens == "auto":
        raise ConfigError("tokens is auto: only train and iter_train find the number")
    check_tokens(encoder, config.tokens)
    try:
        pool = Pool(encoder, config, [config.tokens])
        (member,) = pool.look_at([(prompt, config, "")])
        pool.add([(member, start_vectors(encoder, prompt, config, config.tokens, start), resume)])
    except RuntimeError as error:  # torch's type for a lost or full device, whichever it is
        raise TrainingFailed(device_failure(error, encoder.device)) from error

    due = interval if callable(interval) else lambda step: step % interval == 0
    try:
        while not member.stopped:
            pool.advance()
            if pool.is_due():
                pool.check()
            if due(member.step) or member.stopped:
                pool.read_back([member])
                if (yield report_of(pool, member)) and not member.stopped:
                    member.stopped = "interrupted"
    except RuntimeError as error:
        member.stopped, member.failure = "failed", device_failure(error, encoder.device)
    return member.trained(encoder.arithmetic)


def report_of(pool: Pool, member: Member) -> Report:
    """How far a member of a pool is, as of its last reading back."""
    figures, leader = member.figures(), member.leader
    now = figures[-1, :, leader].tolist()
    then = figures[int(member.at.best_step[leader]), :, leader].tolist()
    return Report(
        step=member.step,
        steps=member.config.steps,
        loss=now[0],
        similarity=now[1],
        best_loss=float(member.at.best_loss[leader]),
        best_similarity=then[1],
        seconds=member.seconds,
        vectors=member.vectors,
        restarts=tuple(figures[-1, 0].tolist()) if member.config.restarts > 1 else (),
        state=lambda: pool.state(member),
    )


def device_failure(error: RuntimeError, device: torch.device) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return f"{device} is out of memory: fewer restarts, fewer contexts or another device need less"
    return f"{device} failed: {reason(error)}"
