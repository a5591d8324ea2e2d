"""The programs that `export` supports, and the soft prompts that each can use. Cheap to import.

`encode` decides how the files are written.

Source: the loaders of these programs, listed in tests/softprompt/formats/test_consumers.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from softprompt.text_states import CLIP_G, CLIP_H, CLIP_L

SDXL = "sdxl"


@dataclass(frozen=True)
class Program:
    """A value of `--to`.

    Attributes:
        widths: the widths that the program can use without a second half, each with the families of image models that
            read them. Empty for formats that accept any width.
        supports_pair: whether one file can hold an SDXL pair.
        word_is_stem: whether the word to type in a prompt is the file name without its suffix.
        custom_token: whether users can choose the word to type.
        needs_model: whether an export needs the language model, for its token embeddings or its chat template.
    """

    title: str
    suffix: str
    widths: Mapping[int, tuple[str, ...]]
    supports_pair: bool = False
    word_is_stem: bool = False
    custom_token: bool = False
    needs_model: bool = False


_ANY_ENCODER = {CLIP_L: ("sd1", SDXL, "flux"), CLIP_H: ("sd2",), CLIP_G: (SDXL,)}
_NO_SDXL_HALF = {CLIP_L: ("sd1",), CLIP_H: ("sd2",)}  # for programs that reject or ignore one half of an SDXL pair

# for soft prompts of text encoders
PROGRAMS = {
    "safetensors": Program("safetensors", ".safetensors", {}, supports_pair=True),
    "comfyui": Program("ComfyUI", ".safetensors", _ANY_ENCODER, supports_pair=True, word_is_stem=True),
    "a1111": Program("AUTOMATIC1111", ".pt", _NO_SDXL_HALF, supports_pair=True, word_is_stem=True),
    "a1111-png": Program("AUTOMATIC1111", ".png", _NO_SDXL_HALF, word_is_stem=True),
    "diffusers": Program(
        "diffusers", ".learned_embeds.safetensors", _ANY_ENCODER, supports_pair=True, custom_token=True
    ),
    "invokeai": Program("InvokeAI", ".safetensors", _NO_SDXL_HALF, supports_pair=True, word_is_stem=True),
    "kohya": Program("kohya", ".safetensors", _NO_SDXL_HALF, supports_pair=True, word_is_stem=True),
    "kobold": Program("KoboldAI", ".zip", {}),
    "peft": Program("PEFT", "-peft", {}),
    "numpy": Program("numpy", ".npy", {}),
}

# for soft prompts of language models
LANGUAGE_MODEL_PROGRAMS = {
    "safetensors": PROGRAMS["safetensors"],
    "transformers": Program("transformers", ".safetensors", {}, needs_model=True),
    "peft": Program("PEFT", "-peft", {}, needs_model=True),
    "peft-tokens": Program("PEFT", "-peft-tokens", {}, needs_model=True),
    "vllm": Program("vLLM", ".vllm.json", {}, needs_model=True),
    "sglang": Program("SGLang", ".sglang.json", {}, needs_model=True),
    "kobold": PROGRAMS["kobold"],
    "numpy": PROGRAMS["numpy"],
}

ALL_PROGRAMS = PROGRAMS | LANGUAGE_MODEL_PROGRAMS
