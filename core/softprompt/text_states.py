"""What the diffusion models read of a CLIP text encoder, by family; needs no torch.

Read in their sources (2026-11), where what they read stands in these functions:
sd1   CompVis `FrozenCLIPEmbedder.forward` (last_hidden_state), diffusers `StableDiffusionPipeline.encode_prompt`, AUTOMATIC1111
      `FrozenCLIPEmbedderWithCustomWords.encode_with_transformers`: all positions of the last layer, normed; pads are the end token.
sd2   Stability-AI `FrozenOpenCLIPEmbedder.encode_with_transformer` with layer="penultimate", ComfyUI `SD2ClipHModel`: the layer
      before the last, with `ln_final`; pads are 0. In diffusers the same by another way: its copy of the encoder lacks the last layer.
sdxl  `StableDiffusionXLPipeline.encode_prompt` (hidden_states[-2] of both encoders), Stability-AI `FrozenOpenCLIPEmbedder2` with
      legacy=False, ComfyUI `SDXLClipG` and `SDXLClipModel` (layer_norm_hidden_state=False): the layer before the last, not normed.
      Beside it bigG's projected pooled output, which is what `similarity` compares.
flux  black-forest-labs `HFEmbedder.forward` and diffusers `FluxPipeline._get_clip_prompt_embeds` (pooler_output), ComfyUI
      `FluxClipModel` (return_projected_pooled=False): the normed last layer at the end token, before the projection. One vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ImageProgram = Literal["sd1", "sd2", "sdxl", "flux"]
ALL: tuple[ImageProgram, ...] = get_args(ImageProgram)


@dataclass(frozen=True)
class HiddenStateSpec:
    """`last`: the last layer, or the one before it; `normed`: after the final norm; `pooled`: at the end token only."""

    last: bool
    normed: bool
    pooled: bool = False


READS: dict[ImageProgram, HiddenStateSpec] = {
    "sd1": HiddenStateSpec(last=True, normed=True),
    "sd2": HiddenStateSpec(last=False, normed=True),
    "sdxl": HiddenStateSpec(last=False, normed=False),
    "flux": HiddenStateSpec(last=True, normed=True, pooled=True),
}


@dataclass(frozen=True)
class KnownEncoder:
    """The very weights that programs of these families have, as open_clip names them, and the layers of the text tower."""

    model: str
    layers: int
    families: tuple[ImageProgram, ...]
    used_by: str


CLIP_L, CLIP_H, CLIP_G = 768, 1024, 1280
ENCODERS = {  # by width
    CLIP_L: KnownEncoder(
        "ViT-L-14-quickgelu/openai",
        12,
        ("sd1", "sdxl", "flux"),
        "Stable Diffusion 1.x, Flux, and the first encoder of SDXL",
    ),
    CLIP_H: KnownEncoder("ViT-H-14/laion2b_s32b_b79k", 24, ("sd2",), "Stable Diffusion 2.x"),
    CLIP_G: KnownEncoder("ViT-bigG-14/laion2b_s39b_b160k", 32, ("sdxl",), "the second encoder of SDXL"),
}


def families_of(width: int, layers: int) -> tuple[ImageProgram, ...]:
    """The families that are measured on an encoder of this shape: those whose own has it, else all.

    That the programs read this encoder does not follow: see `is_stand_in`.
    """
    own = ENCODERS.get(width)
    return own.families if own and own.layers == layers else ALL


def is_stand_in(model: str) -> bool:
    """Whether the model of this name is none that the programs have, and only stands in for it: `mini`, a folder, other weights."""
    return model not in {one.model for one in ENCODERS.values()}
