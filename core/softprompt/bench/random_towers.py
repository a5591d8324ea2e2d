"""Random weights in the shapes of well-known text encoders, to measure their speed without a download."""

from __future__ import annotations

from difflib import get_close_matches

import torch

from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import Block, TextTransformer, TextTransformerConfig
from softprompt.encoders.devices import pick_device
from softprompt.errors import UnknownModel

# width, heads, layers, embed_dim; the other dimensions and the activation match the open_clip models of these names
SHAPES = {
    "ViT-B-32": (512, 8, 12, 512),
    "ViT-L-14": (768, 12, 12, 768),
    "ViT-H-14": (1024, 16, 24, 1024),
    "ViT-bigG-14": (1280, 20, 32, 1280),
}


def random_encoder(name: str, device: str = "auto", precision: str = "float32", seed: int = 0) -> TextEncoder:
    """Return a text encoder of this shape with CLIP's tokenizer and random initial weights (Radford et al. 2021).

    Raises:
        UnknownModel, DeviceError: the shape or the device does not exist.
    """
    shape = {known.lower(): known for known in SHAPES}.get(name.lower())
    if shape is None:
        close = get_close_matches(name, SHAPES, 1, 0.4)
        raise UnknownModel(
            f"no shape is named {name!r}. Choose from {', '.join(SHAPES)}.{f' Close: {close[0]}' if close else ''}"
        )
    width, heads, layers, embed_dim = SHAPES[shape]
    config = TextTransformerConfig(width, heads, layers, 77, 49_408, embed_dim, 4 * width)
    target_device = pick_device(device)
    tower = random_tower(config, seed).to(target_device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
    tokenizer = Tokenizer()
    return TextEncoder(
        f"{shape} (random weights)", tower, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,))
    )


def random_tower(config: TextTransformerConfig, seed: int = 0) -> TextTransformer:
    """Return a text transformer with the shape given by `config` and random weights, on the CPU."""
    rng = torch.Generator().manual_seed(seed)
    w, m = config.width, config.mlp_width

    def sample(*size: int, std: float) -> torch.Tensor:
        return torch.randn(*size, generator=rng) * std

    attention, out, inner = w**-0.5, w**-0.5 * (2 * config.layers) ** -0.5, (2 * w) ** -0.5
    ones, zeros = torch.ones(w), torch.zeros(w)
    blocks = [
        Block(
            norm1_weight=ones, norm1_bias=zeros,
            qkv_weight=sample(3 * w, w, std=attention), qkv_bias=torch.zeros(3 * w),
            out_weight=sample(w, w, std=out), out_bias=zeros,
            norm2_weight=ones, norm2_bias=zeros,
            fc_weight=sample(m, w, std=inner), fc_bias=torch.zeros(m),
            proj_weight=sample(w, m, std=out), proj_bias=zeros,
        )
        for _ in range(config.layers)
    ]  # fmt: skip
    return TextTransformer(
        config,
        table=sample(config.vocabulary, w, std=0.02),
        positions=sample(config.context, w, std=0.01),
        blocks=blocks,
        norm_weight=ones,
        norm_bias=zeros,
        projection=sample(w, config.embed_dim, std=attention),
    )
