"""Soft prompts as the bytes of other programs' files.

Formats: safetensors' own specification; A1111's modules/textual_inversion (Embedding.save, image_embedding) and safe.py; KoboldAI's
fileops.checksp; PEFT's PromptTuningConfig; numpy's .npy. Nothing needs torch but the `.pt`.
"""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from typing import Any

import numpy as np
from safetensors.numpy import save

from softprompt.formats.writers.programs import EMB_PARAMS
from softprompt.prompts.serialization import to_dict
from softprompt.prompts.soft_prompt import Array, SoftPrompt

PAIR = ("clip_l", "clip_g")
TENSORS = ("target", "losses", "similarities")
A1111_STAR = 265  # the id of `*` in CLIP's vocabulary, which every file of A1111's names
_A1111_MEMBER = re.compile(r"[^/]+/(?:data/\d+|version|data\.pkl)")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same soft prompt gives the same zip


def one_tensor(prompt: SoftPrompt, key: str = EMB_PARAMS) -> bytes:
    """safetensors with the vectors as its one tensor: a second breaks A1111 and diffusers. Provenance is in the metadata."""
    metadata = {"format": "pt", "softprompt": _json(to_dict(prompt)), "softprompt_tensors": _json(_tensors(prompt))}
    raw: bytes = save({key: _plain(prompt.vectors)}, metadata)
    return raw


def two_tensors(clip_l: SoftPrompt, clip_g: SoftPrompt) -> bytes:
    """safetensors with the two soft prompts of a pair for SDXL; the metadata has the provenance of both, and in words what each is."""
    both = dict(zip(PAIR, (clip_l, clip_g), strict=True))
    words = {
        key: f"{one.name or 'a soft prompt'} on {one.model or 'an unknown model'}: {one.hard_prompt}"
        for key, one in both.items()
    }
    metadata = {
        "format": "pt",
        "softprompt": _json({key: to_dict(prompt) for key, prompt in both.items()}),
        "softprompt_tensors": _json({key: _tensors(prompt) for key, prompt in both.items()}),
    } | {key: text.encode("utf-8", "replace").decode() for key, text in words.items()}
    raw: bytes = save({key: _plain(prompt.vectors) for key, prompt in both.items()}, metadata)
    return raw


def _tensors(prompt: SoftPrompt) -> dict[str, str]:
    """What has no place among an export's tensors, as base64."""
    return {name: base64.b64encode(_plain(getattr(prompt, name)).tobytes()).decode() for name in TENSORS}


def a1111(prompt: SoftPrompt, stem: str) -> bytes:
    """A `.pt` as A1111 writes it: without the members that newer versions of torch add, for which A1111 refuses a file as malicious."""
    import torch

    file, plain = io.BytesIO(), io.BytesIO()
    torch.save(_embedding(prompt, stem, torch.from_numpy(_plain(prompt.vectors).copy())), file)
    with zipfile.ZipFile(file) as written, zipfile.ZipFile(plain, "w") as archive:
        for name in written.namelist():
            if _A1111_MEMBER.fullmatch(name):
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), written.read(name))
    return plain.getvalue()


def a1111_png(prompt: SoftPrompt, stem: str) -> bytes:
    """The picture card with the embedding in its text, where A1111 looks for it."""
    from PIL.PngImagePlugin import PngInfo

    from softprompt.formats.writers.png_card import draw

    # a double holds every float32, so no bit is lost on the way through JSON
    inside = _embedding(prompt, stem, {"TORCHTENSOR": _plain(prompt.vectors).tolist()})
    text = PngInfo()
    text.add_text("sd-ti-embedding", base64.b64encode(_json(inside).encode()).decode())
    file = io.BytesIO()
    draw(prompt).save(file, "PNG", pnginfo=text, optimize=True)
    return file.getvalue()


def _embedding(prompt: SoftPrompt, stem: str, vectors: Any) -> dict[str, Any]:
    return {
        "string_to_token": {"*": A1111_STAR},
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
        archive.writestr(zipfile.ZipInfo("tensor.npy", _EPOCH), npy(prompt, ""))
        archive.writestr(zipfile.ZipInfo("meta.json", _EPOCH), json.dumps(meta, indent=2))
    return file.getvalue()


def npy(prompt: SoftPrompt, _stem: str) -> bytes:
    file = io.BytesIO()
    np.save(file, _plain(prompt.vectors), allow_pickle=False)
    return file.getvalue()


def peft(prompt: SoftPrompt) -> dict[str, bytes]:
    """The two files of an adapter's folder. Heads and layers are left to the model: prompt tuning reads neither."""
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
        "adapter_model.safetensors": one_tensor(prompt, "prompt_embeddings"),
    }


def _plain(array: Array) -> Array:
    plain: Array = np.ascontiguousarray(array, dtype="<f4")
    return plain


def _json(value: object) -> str:
    """In ASCII, and standard: raises ValueError for a figure that is not finite."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False)
