"""The vectors that a training begins from."""

from __future__ import annotations

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.encoders.base import FrozenModel
from softprompt.errors import ConfigError, no_start
from softprompt.objectives.base import HardPrompt
from softprompt.prompts.soft_prompt import Array, SoftPrompt


def as_start_tensor(model: FrozenModel, start: SoftPrompt | Array | Tensor | None) -> Tensor | None:
    """(k, width) on the cpu. Raises ConfigError for a soft prompt of other weights, whose vectors mean nothing here."""
    if isinstance(start, SoftPrompt):
        model.check_belongs(start)
        start = start.vectors
    return None if start is None else torch.asarray(start, copy=True)


def init_vectors(model: FrozenModel, prompt: HardPrompt, config: TrainConfig, k: int, soft: Tensor | None) -> Tensor:
    """(r, k, w) float32 on the encoder's device; the randomness comes from the cpu, so that every device starts alike."""
    rng = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(config.restarts, k, model.width, generator=rng).to(model.device) * model.token_std
    if soft is not None and config.init != "soft":
        raise ConfigError(f"a soft prompt to begin from was given, but init is {config.init!r}: set init to 'soft'")
    if config.init == "noise":
        return noise
    if config.init == "vocabulary":
        chosen = torch.randint(len(model.ordinary_ids), (config.restarts, k), generator=rng)
        return model.embed(model.ordinary_ids[chosen.to(model.device)])
    if config.init == "prompt":
        soft = model.embed([token for piece in prompt.pieces for token in piece])
        if len(soft) > k:  # spread over the prompt
            soft = soft[torch.linspace(0, len(soft) - 1, k).round().long().to(soft.device)]
    elif soft is None or soft.ndim != 2 or soft.shape[-1] != model.width:
        had = "none was given" if soft is None else f"the one given has the shape {tuple(soft.shape)}"
        raise no_start(had, f"width {model.width}")
    start = noise.clone()  # soft tokens beyond those given begin as noise
    start[:, : len(soft)] = soft[:k].to(start)
    start[1:, : len(soft)] += 0.3 * noise[1:, : len(soft)]  # restarts beside the first must differ from it
    return start
