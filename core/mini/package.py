"""Write the files of the built-in model: `config.json` and `model.safetensors`."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from softprompt.encoders.clip.transformer import Block, TextTransformer

STUDENT = {
    "width": 256,
    "heads": 4,
    "layers": 4,
    "context": 77,
    "vocabulary": 49408,
    "embed_dim": 384,
    "mlp_width": 1024,
}


def save_package(tower: TextTransformer, folder: Path) -> None:
    """Write the configuration and the float16 weights that `softprompt.encoders.clip.mini` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: getattr(tower, name) for name in ("table", "positions", "norm_weight", "norm_bias", "projection")}
    for field in Block._fields:
        for i, block in enumerate(tower.blocks):
            tensors[f"blocks.{i}.{field}"] = getattr(block, field)
    # clone: save_file rejects transposed views
    save_file(
        {name: tensor.detach().to(torch.float16).contiguous().clone() for name, tensor in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    (folder / "config.json").write_text(json.dumps(vars(tower.config), indent=1) + "\n", encoding="utf-8")
