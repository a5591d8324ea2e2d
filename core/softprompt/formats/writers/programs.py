"""The programs that soft prompts are written for, and what each can use. Plain facts: importing this costs nothing.

Source: the programs' own loaders, named in tests/softprompt/formats/test_consumers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softprompt.text_states import CLIP_G, CLIP_H, CLIP_L

SDXL = "sdxl"
EMB_PARAMS = "emb_params"  # the key of the one tensor of the default file


@dataclass(frozen=True)
class Program:
    """One value of `--to`.

    `widths`: those of soft prompts that it can use alone, with the families of image models that then read them; none means
    any, as an exchange of vectors. `pair`: whether its file can hold two, for SDXL. `by_stem`: whether the file's name is the
    word to type. `token`: whether a word of one's own can stand for it.
    """

    title: str
    suffix: str
    widths: Mapping[int, tuple[str, ...]]
    pair: bool = False
    by_stem: bool = False
    token: bool = False


_ALL = {CLIP_L: ("sd1", SDXL, "flux"), CLIP_H: ("sd2",), CLIP_G: (SDXL,)}
_NO_HALF = {CLIP_L: ("sd1",), CLIP_H: ("sd2",)}  # these refuse or pass over one half of a pair for SDXL

PROGRAMS = {
    "safetensors": Program("safetensors", ".safetensors", {}, pair=True),
    "comfyui": Program("ComfyUI", ".safetensors", _ALL, pair=True, by_stem=True),
    "a1111": Program("AUTOMATIC1111", ".pt", _NO_HALF, pair=True, by_stem=True),
    "a1111-png": Program("AUTOMATIC1111", ".png", _NO_HALF, by_stem=True),
    "diffusers": Program("diffusers", ".learned_embeds.safetensors", _ALL, pair=True, token=True),
    "invokeai": Program("InvokeAI", ".safetensors", _NO_HALF, pair=True, by_stem=True),
    "kohya": Program("kohya", ".safetensors", _NO_HALF, pair=True, by_stem=True),
    "kobold": Program("KoboldAI", ".zip", {}),
    "peft": Program("PEFT", "-peft", {}),
    "numpy": Program("numpy", ".npy", {}),
}
