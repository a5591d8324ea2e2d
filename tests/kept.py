"""Caches that all tests share: the built-in model, the typeable tokens of a vocabulary, trained soft prompts."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import softprompt
from softprompt import SoftPrompt
from softprompt.config import TrainConfig
from softprompt.encoders.clip.tokenizer import Tokenizer

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder


def cache_mini(load: Callable[[], TextEncoder]) -> Callable[[], TextEncoder]:
    """Wrap `load`, which takes half a second, so that it reads the built-in model once. Cache the model's `to` too."""

    @functools.cache
    def load_cached() -> TextEncoder:
        encoder = load()
        encoder.to = functools.cache(encoder.to)  # type: ignore[method-assign]
        return encoder

    return load_cached


def cache_typeable(find: Callable[[TextEncoder], dict[int, str]]) -> Callable[[TextEncoder], dict[int, str]]:
    """Wrap `find`, which takes seconds, so that encoders with the same CLIP vocabulary share its result."""
    cache: dict[object, dict[int, str]] = {}

    def find_cached(encoder: TextEncoder) -> dict[int, str]:
        tokenizer, max_id = encoder.tokenizer, encoder.config.pooling == "argmax" and max(encoder.specials.end)
        if type(tokenizer) is not Tokenizer:
            return find(encoder)
        key = (tokenizer.clean, len(tokenizer), max_id, encoder.ordinary_ids.numpy().tobytes())
        if key not in cache:
            cache[key] = find(encoder)
        return cache[key]

    return find_cached


def train_cached(encoder: TextEncoder, text: str, config: TrainConfig | None = None, **settings: Any) -> SoftPrompt:
    """Return what `softprompt.train` returns for these settings, trained once: the same seed gives the same bits."""
    return _train_cached(encoder, text, replace(config or TrainConfig(), **settings))


@functools.cache
def _train_cached(encoder: TextEncoder, text: str, config: TrainConfig) -> SoftPrompt:
    return softprompt.train(encoder, text, config)
