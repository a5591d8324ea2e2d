"""Soft prompts that tests take as given, each trained once: the same seed gives the same bits."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import softprompt
from softprompt import SoftPrompt
from softprompt.config import TrainConfig
from softprompt.encoder import TextEncoder


def trained(encoder: TextEncoder, text: str, config: TrainConfig | None = None, **settings: Any) -> SoftPrompt:
    """What `softprompt.train` comes to with these settings."""
    return _trained(encoder, text, replace(config or TrainConfig(), **settings))


@functools.cache
def _trained(encoder: TextEncoder, text: str, config: TrainConfig) -> SoftPrompt:
    return softprompt.train(encoder, text, config)
