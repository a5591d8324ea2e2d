"""What tests take as given, made once for all of them: the built-in model, what its vocabulary can be typed as, soft prompts."""

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


def kept_mini(load: Callable[[], TextEncoder]) -> Callable[[], TextEncoder]:
    """The built-in model as `load` reads it, which takes half a second, and what is made of its vocabulary too."""

    @functools.cache
    def kept() -> TextEncoder:
        encoder = load()
        encoder.to = functools.cache(encoder.to)  # type: ignore[method-assign]
        return encoder

    return kept


def kept_typeable(find: Callable[[TextEncoder], dict[int, str]]) -> Callable[[TextEncoder], dict[int, str]]:
    """What `find` finds of an encoder's vocabulary, which takes seconds; of CLIP's, it depends on little else of the encoder."""
    found: dict[object, dict[int, str]] = {}

    def kept(encoder: TextEncoder) -> dict[int, str]:
        tokenizer, most = encoder.tokenizer, encoder.config.pooling == "argmax" and max(encoder.specials.end)
        if type(tokenizer) is not Tokenizer:
            return find(encoder)
        key = (tokenizer.clean, len(tokenizer), most, encoder.ordinary_ids.numpy().tobytes())
        if key not in found:
            found[key] = find(encoder)
        return found[key]

    return kept


def trained(encoder: TextEncoder, text: str, config: TrainConfig | None = None, **settings: Any) -> SoftPrompt:
    """What `softprompt.train` comes to with these settings: the same seed gives the same bits."""
    return _trained(encoder, text, replace(config or TrainConfig(), **settings))


@functools.cache
def _trained(encoder: TextEncoder, text: str, config: TrainConfig) -> SoftPrompt:
    return softprompt.train(encoder, text, config)
