"""Which states of a CLIP text encoder the diffusion models read, by family. Needs no torch.

Sources, read in 2026-11, and the functions that read the states:
sd1   CompVis `FrozenCLIPEmbedder.forward` (last_hidden_state), diffusers `StableDiffusionPipeline.encode_prompt`,
      AUTOMATIC1111 `FrozenCLIPEmbedderWithCustomWords.encode_with_transformers`: all positions of the last layer,
      normalized. Padding is the end token.
sd2   Stability-AI `FrozenOpenCLIPEmbedder.encode_with_transformer` with layer="penultimate", ComfyUI `SD2ClipHModel`:
      the layer before the last, after `ln_final`. Padding is 0. diffusers reads the same states: its copy of the
      encoder lacks the last layer.
sdxl  `StableDiffusionXLPipeline.encode_prompt` (hidden_states[-2] of both encoders), Stability-AI
      `FrozenOpenCLIPEmbedder2` with legacy=False, ComfyUI `SDXLClipG` and `SDXLClipModel`
      (layer_norm_hidden_state=False): the layer before the last, not normalized. It also reads bigG's projected pooled
      output, which `similarity` compares.
flux  black-forest-labs `HFEmbedder.forward` and diffusers `FluxPipeline._get_clip_prompt_embeds` (pooler_output),
      ComfyUI `FluxClipModel` (return_projected_pooled=False): one vector, the normalized last layer at the end token,
      before the projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ImageProgram = Literal["sd1", "sd2", "sdxl", "flux"]
ALL_FAMILIES: tuple[ImageProgram, ...] = get_args(ImageProgram)


@dataclass(frozen=True)
class HiddenStateSpec:
    """The states that a family reads.

    Attributes:
        last: read the last layer rather than the layer before it.
        normed: read the states after the final norm.
        pooled: read the end token only.
    """

    last: bool
    normed: bool
    pooled: bool = False


HIDDEN_STATE_SPECS: dict[ImageProgram, HiddenStateSpec] = {
    "sd1": HiddenStateSpec(last=True, normed=True),
    "sd2": HiddenStateSpec(last=False, normed=True),
    "sdxl": HiddenStateSpec(last=False, normed=False),
    "flux": HiddenStateSpec(last=True, normed=True, pooled=True),
}


@dataclass(frozen=True)
class KnownEncoder:
    """A text encoder that programs of `families` use, under its name in open_clip."""

    model: str
    layers: int
    families: tuple[ImageProgram, ...]
    used_by: str


CLIP_L, CLIP_H, CLIP_G = 768, 1024, 1280
KNOWN_ENCODERS = {  # by width
    CLIP_L: KnownEncoder(
        "ViT-L-14-quickgelu/openai",
        12,
        ("sd1", "sdxl", "flux"),
        "Stable Diffusion 1.x, Flux, and the first encoder of SDXL",
    ),
    CLIP_H: KnownEncoder("ViT-H-14/laion2b_s32b_b79k", 24, ("sd2",), "Stable Diffusion 2.x"),
    CLIP_G: KnownEncoder("ViT-bigG-14/laion2b_s39b_b160k", 32, ("sdxl",), "the second encoder of SDXL"),
}


def families_for(width: int, layers: int) -> tuple[ImageProgram, ...]:
    """Return the families to measure on an encoder of this shape: those whose encoder has the same shape, else all.

    The programs need not use this encoder itself: see `is_stand_in`.
    """
    known = KNOWN_ENCODERS.get(width)
    return known.families if known and known.layers == layers else ALL_FAMILIES


def is_stand_in(model: str) -> bool:
    """Return whether a model only stands in for a program's encoder, as `mini`, a folder and other weights do."""
    return model not in {encoder.model for encoder in KNOWN_ENCODERS.values()}
