"""The start vectors of a training."""

from __future__ import annotations

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.encoders.base import FrozenModel
from softprompt.errors import ConfigError, missing_start_prompt
from softprompt.objectives.base import HardPrompt
from softprompt.prompts.soft_prompt import Array, SoftPrompt


def as_start_tensor(model: FrozenModel, start: SoftPrompt | Array | Tensor | None) -> Tensor | None:
    """Return start vectors (k, w) on the cpu. Raises ConfigError if the soft prompt belongs to other model weights."""
    if isinstance(start, SoftPrompt):
        model.check_compatible(start)
        start = start.vectors
    return None if start is None else torch.asarray(start, copy=True)


def init_vectors(model: FrozenModel, prompt: HardPrompt, config: TrainConfig, k: int, soft: Tensor | None) -> Tensor:
    """Return start vectors (r, k, w), float32 on the model's device. Every device draws the same noise."""
    rng = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(config.restarts, k, model.width, generator=rng).to(model.device) * model.token_std
    if soft is not None and config.init != "soft":
        raise ConfigError(f"a start soft prompt is given, but init is {config.init!r}. Set init to 'soft'.")
    if config.init == "noise":
        return noise
    if config.init == "vocabulary":
        chosen = torch.randint(len(model.ordinary_ids), (config.restarts, k), generator=rng)
        return model.embed(model.ordinary_ids[chosen.to(model.device)])
    if config.init == "prompt":
        soft = model.embed([token for chunk in prompt.chunks for token in chunk])
        if len(soft) > k:  # pick k tokens evenly
            soft = soft[torch.linspace(0, len(soft) - 1, k).round().long().to(soft.device)]
    elif soft is None or soft.ndim != 2 or soft.shape[-1] != model.width:
        problem = "none was given" if soft is None else f"the given one has shape {tuple(soft.shape)}"
        raise missing_start_prompt(problem, f"width {model.width}")
    start = noise.clone()  # extra soft tokens start as noise
    start[:, : len(soft)] = soft[:k].to(start)
    start[1:, : len(soft)] += 0.3 * noise[1:, : len(soft)]  # every further restart must differ from the first
    return start
