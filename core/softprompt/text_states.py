"""The hidden states of a CLIP text encoder that diffusion models use, by family. Needs no torch.

Sources as of 2026-11, with the functions that select the states:
sd1   CompVis `FrozenCLIPEmbedder.forward` (last_hidden_state), diffusers `StableDiffusionPipeline.encode_prompt`,
      AUTOMATIC1111 `FrozenCLIPEmbedderWithCustomWords.encode_with_transformers`: all positions of the last layer,
      normalized. Padding is the end token.
sd2   Stability-AI `FrozenOpenCLIPEmbedder.encode_with_transformer` with layer="penultimate", ComfyUI `SD2ClipHModel`:
      the second-to-last layer, after `ln_final`. Padding is 0. diffusers uses the same states, because its copy of
      the encoder lacks the last layer.
sdxl  `StableDiffusionXLPipeline.encode_prompt` (hidden_states[-2] of both encoders), Stability-AI
      `FrozenOpenCLIPEmbedder2` with legacy=False, ComfyUI `SDXLClipG` and `SDXLClipModel`
      (layer_norm_hidden_state=False): the second-to-last layer, not normalized. SDXL also uses bigG's projected
      pooled output, which `similarity` compares.
flux  black-forest-labs `HFEmbedder.forward` and diffusers `FluxPipeline._get_clip_prompt_embeds` (pooler_output),
      ComfyUI `FluxClipModel` (return_projected_pooled=False): one vector, the normalized last layer at the end token,
      before the projection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

ImageProgram = Literal["sd1", "sd2", "sdxl", "flux"]
ALL_FAMILIES: tuple[ImageProgram, ...] = get_args(ImageProgram)
FAMILY_NAMES: dict[ImageProgram, str] = {"sd1": "SD 1.x", "sd2": "SD 2.x", "sdxl": "SDXL", "flux": "Flux"}


@dataclass(frozen=True)
class HiddenStateSpec:
    """The hidden states that a family uses.

    Attributes:
        last: use the last layer rather than the second-to-last.
        normed: use the states after the final norm.
        pooled: use only the end token.
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
    """A text encoder that programs of `families` use. `model` is its open_clip name."""

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
    """Return the families that use an encoder of this shape, or all families if none does.

    Their programs may use a different encoder of the same shape: see `is_stand_in`.
    """
    known = KNOWN_ENCODERS.get(width)
    return known.families if known and known.layers == layers else ALL_FAMILIES


def families_reading(model: str) -> tuple[ImageProgram, ...]:
    """Return the families whose programs use exactly this model, by its open_clip name."""
    return next((encoder.families for encoder in KNOWN_ENCODERS.values() if encoder.model == model), ())


def is_stand_in(model: str) -> bool:
    """Return whether no image program uses this model: `mini`, a local folder or different weights."""
    return model not in {encoder.model for encoder in KNOWN_ENCODERS.values()}
