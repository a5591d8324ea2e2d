"""Load the built-in model, `mini`."""

from __future__ import annotations

import json
from importlib.resources import as_file
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.encoders.catalog import MINI, MINI_FOLDER
from softprompt.errors import ModelUnavailable

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.clip.transformer import TextTransformer


def read_tower(folder: Path) -> TextTransformer:
    """Read a text tower from the files that core/mini/package.py writes. Weights become float32."""
    from safetensors.torch import load_file

    from softprompt.encoders.clip.transformer import Block, TextTransformer, TextTransformerConfig

    config = TextTransformerConfig(**json.loads((folder / "config.json").read_text(encoding="utf-8")))
    tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
    blocks = [
        Block(**{field: tensors.pop(f"blocks.{i}.{field}") for field in Block._fields}) for i in range(config.layers)
    ]
    return TextTransformer(config, blocks=blocks, **tensors)


def load_mini() -> TextEncoder:
    from softprompt.encoders.base import SpecialTokens
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.encoders.clip.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    try:
        with as_file(MINI_FOLDER) as folder:
            tower = read_tower(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelUnavailable(
            f"the built-in model's files are damaged ({error}). Run pip install --force-reinstall softprompt-tui."
        ) from error
    return TextEncoder(MINI, tower, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))
