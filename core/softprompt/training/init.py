"""Start vectors for training.

Shapes: r restarts, k soft tokens, w width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from softprompt.config import TrainConfig
from softprompt.encoders.base import FrozenModel
from softprompt.errors import ConfigError, missing_start_prompt
from softprompt.objectives.base import HardPrompt
from softprompt.prompts.soft_prompt import Array, SoftPrompt


def as_start_tensor(model: FrozenModel, start: SoftPrompt | Array | Tensor | None) -> Tensor | None:
    """Copy start vectors to a tensor (k, w). Raises ConfigError if the soft prompt was trained on different weights."""
    if isinstance(start, SoftPrompt):
        model.check_compatible(start)
        start = start.vectors
    return None if start is None else torch.asarray(start, copy=True)


def init_vectors(model: FrozenModel, prompt: HardPrompt, config: TrainConfig, k: int, start: Tensor | None) -> Tensor:
    """Return start vectors (r, k, w), float32 on the model's device. The noise is the same on every device."""
    rng = torch.Generator().manual_seed(config.seed)
    noise = torch.randn(config.restarts, k, model.width, generator=rng).to(model.device) * model.token_std
    if start is not None and config.init != "soft":
        raise ConfigError(f"a start soft prompt was given, but init is {config.init!r}. Set init to 'soft'.")
    if config.init == "noise":
        return noise
    if config.init == "vocabulary":
        chosen = torch.randint(len(model.ordinary_ids), (config.restarts, k), generator=rng)
        return model.embed(model.ordinary_ids[chosen.to(model.device)])
    if config.init == "prompt":
        start = model.embed([token for chunk in prompt.chunks for token in chunk])
        if len(start) > k:  # pick k evenly spaced tokens
            start = start[torch.linspace(0, len(start) - 1, k).round().long().to(start.device)]
    elif config.init == "first":
        start = model.embed([token for chunk in prompt.chunks for token in chunk][:k])
    elif start is None or start.ndim != 2 or start.shape[-1] != model.width:
        problem = "none was given" if start is None else f"the given vectors have shape {tuple(start.shape)}"
        raise missing_start_prompt(problem, f"width {model.width}")
    vectors = noise.clone()  # soft tokens beyond the given ones start as noise
    vectors[:, : len(start)] = start[:k].to(vectors)
    # further restarts must differ from the first; 0.3 of the usual noise keeps them close to the start vectors
    vectors[1:, : len(start)] += 0.3 * noise[1:, : len(start)]
    return vectors
