"""Encode soft prompts in other programs' file formats. Only `.pt` files need torch.

Formats: the safetensors specification; A1111's modules/textual_inversion (Embedding.save, image_embedding) and safe.py;
KoboldAI's fileops.checksp; PEFT's PromptTuningConfig; numpy's .npy.
"""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from typing import Any

import numpy as np

from softprompt.prompts import prompt_file
from softprompt.prompts.prompt_file import pack_tensors
from softprompt.prompts.safetensors_header import EMB_PARAMS
from softprompt.prompts.soft_prompt import Array, SoftPrompt

PAIR_KEYS = ("clip_l", "clip_g")
A1111_STAR_TOKEN_ID = 265  # the id of `*` in CLIP's vocabulary; every A1111 file contains it
_A1111_MEMBER = re.compile(r"[^/]+/(?:data/\d+|version|data\.pkl)")
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # fixed, so that the same soft prompt gives the same bytes


def safetensors(prompt: SoftPrompt, key: str = EMB_PARAMS) -> bytes:
    """Encode a soft prompt as `SoftPrompt.save` does, with its vectors under `key`."""
    return prompt_file.encode({key: prompt.vectors}, prompt.as_dict(), pack_tensors(prompt.extra_tensors))


def safetensors_pair(clip_l: SoftPrompt, clip_g: SoftPrompt) -> bytes:
    """Encode an SDXL pair as safetensors. The metadata has the provenance and a readable description of both."""
    both = dict(zip(PAIR_KEYS, (clip_l, clip_g), strict=True))
    descriptions = {
        key: f"{prompt.name or 'a soft prompt'} on {prompt.model or 'an unknown model'}: {prompt.hard_prompt}"
        for key, prompt in both.items()
    }
    return prompt_file.encode(
        {key: prompt.vectors for key, prompt in both.items()},
        {key: prompt.as_dict() for key, prompt in both.items()},
        {key: pack_tensors(prompt.extra_tensors) for key, prompt in both.items()},
        {key: text.encode("utf-8", "replace").decode() for key, text in descriptions.items()},
    )


def a1111(prompt: SoftPrompt, stem: str) -> bytes:
    """Encode a `.pt` file for A1111.

    Leaves out the members that newer versions of torch add, because A1111 rejects files with such members as malicious.
    """
    import torch

    file, plain = io.BytesIO(), io.BytesIO()
    torch.save(_a1111_embedding(prompt, stem, torch.from_numpy(_as_float32(prompt.vectors).copy())), file)
    with zipfile.ZipFile(file) as written, zipfile.ZipFile(plain, "w") as archive:
        for name in written.namelist():
            if _A1111_MEMBER.fullmatch(name):
                archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), written.read(name))
    return plain.getvalue()


def a1111_png(prompt: SoftPrompt, stem: str) -> bytes:
    """Encode the picture card, with the embedding in the text chunk that A1111 reads."""
    from PIL.PngImagePlugin import PngInfo

    from softprompt.formats.writers.png_card import draw_card

    # JSON numbers are doubles, which represent every float32 exactly
    embedding = _a1111_embedding(prompt, stem, {"TORCHTENSOR": _as_float32(prompt.vectors).tolist()})
    text = PngInfo()
    text.add_text("sd-ti-embedding", base64.b64encode(_json(embedding).encode()).decode())
    file = io.BytesIO()
    draw_card(prompt).save(file, "PNG", pnginfo=text, optimize=True)
    return file.getvalue()


def _a1111_embedding(prompt: SoftPrompt, stem: str, vectors: Any) -> dict[str, Any]:
    return {
        "string_to_token": {"*": A1111_STAR_TOKEN_ID},
        "string_to_param": {"*": vectors},
        "name": stem,
        "step": prompt.steps,
        "sd_checkpoint": None,
        "sd_checkpoint_name": prompt.model or None,
    }


def kobold(prompt: SoftPrompt, _stem: str) -> bytes:
    meta = {
        "name": prompt.name,
        "supported": [prompt.model] if prompt.model else [],
        "description": prompt.hard_prompt,
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("tensor.npy", _ZIP_DATE), npy(prompt, ""))
        archive.writestr(zipfile.ZipInfo("meta.json", _ZIP_DATE), json.dumps(meta, indent=2))
    return file.getvalue()


def npy(prompt: SoftPrompt, _stem: str) -> bytes:
    file = io.BytesIO()
    np.save(file, _as_float32(prompt.vectors), allow_pickle=False)
    return file.getvalue()


def peft(prompt: SoftPrompt) -> dict[str, bytes]:
    """Encode the two files of an adapter folder. Head and layer counts are null, because prompt tuning uses neither."""
    tokens, width = prompt.vectors.shape
    config = {
        "peft_type": "PROMPT_TUNING",
        "task_type": "FEATURE_EXTRACTION",
        "base_model_name_or_path": prompt.model or None,
        "num_virtual_tokens": tokens,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": None,
        "num_layers": None,
        "inference_mode": True,
        "prompt_tuning_init": "RANDOM",
    }
    return {
        "adapter_config.json": json.dumps(config, indent=2, sort_keys=True).encode(),
        "adapter_model.safetensors": safetensors(prompt, "prompt_embeddings"),
    }


def _as_float32(array: Array) -> Array:
    plain: Array = np.ascontiguousarray(array, dtype="<f4")
    return plain


def _json(value: object) -> str:
    """Encode a value as strict ASCII JSON. Raises ValueError for numbers that are not finite."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False)
