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

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Family = Literal["sd1", "sd2", "sdxl", "flux"]
ALL: tuple[Family, ...] = get_args(Family)


@dataclass(frozen=True)
class Reads:
    """`last`: the last layer, or the one before it; `normed`: after the final norm; `pooled`: at the end token only."""

    last: bool
    normed: bool
    pooled: bool = False


READS: dict[Family, Reads] = {
    "sd1": Reads(last=True, normed=True),
    "sd2": Reads(last=False, normed=True),
    "sdxl": Reads(last=False, normed=False),
    "flux": Reads(last=True, normed=True, pooled=True),
}

# (width, layers) of the encoders that the families are built with: CLIP-L, ViT-H, ViT-bigG
_ENCODERS: dict[tuple[int, int], tuple[Family, ...]] = {
    (768, 12): ("sd1", "sdxl", "flux"),
    (1024, 24): ("sd2",),
    (1280, 32): ("sdxl",),
}


def families_of(width: int, layers: int) -> tuple[Family, ...]:
    """The families that read an encoder of this shape; all of them for one that none of them reads, which then stands in."""
    return _ENCODERS.get((width, layers), ALL)


def is_stand_in(families: Iterable[str]) -> bool:
    """Whether these are measured on an encoder that none of them reads, such as `mini`: no encoder is read by all of them."""
    return set(families) >= set(ALL)
