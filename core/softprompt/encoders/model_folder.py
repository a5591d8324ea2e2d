"""Read a `local-dir:` model folder, and check its open_clip configuration and weights before a library loads them.

Nothing in the folder is trusted. Checking the configuration imports no library that could run code from the folder.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import ModelRefused, ModelUnavailable, UnknownModel, model_not_supported

if TYPE_CHECKING:
    from torch import Tensor

LOCAL_PREFIX = "local-dir:"  # followed by the path of a model folder
CONFIG_FILE = "open_clip_config.json"
MAX_CONFIG_BYTES = 1 << 20  # open_clip's own configurations have fewer than 2,000
# open_clip's names in order of preference; a file with another name is used if it is the only one
WEIGHTS_FILES = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")  # open_clip's training writes .pt checkpoints
# the text settings of open_clip 3; an unknown setting may change what the weights compute
KNOWN_TEXT_SETTINGS = frozenset(
    (
        "context_length vocab_size hf_tokenizer_name tokenizer_mode tokenizer_kwargs width heads layers mlp_ratio "
        "ls_init_value embed_cls pad_id eos_id no_causal_mask final_ln_after_pool pool_type proj_bias proj_type "
        "output_tokens act_kwargs norm_kwargs block_type qk_norm scaled_cosine_attn scale_heads scale_attn_inner "
        "scale_attn scale_fc hf_model_name hf_model_pretrained hf_proj_type hf_pooler_type"
    ).split()
)
MAX_SETTINGS = {"context_length": 1 << 16, "vocab_size": 1 << 24, "width": 1 << 16, "heads": 1 << 12, "layers": 1 << 10}
SETTING_TYPES = {"hf_tokenizer_name": str, "hf_model_name": str, "tokenizer_mode": str, "tokenizer_kwargs": dict}


def local_folder(name: str) -> Path:
    """Return the absolute path of a `local-dir:` name. Raises UnknownModel if it names no folder."""
    if not name.removeprefix(LOCAL_PREFIX).strip():
        raise UnknownModel(f"{name!r} names no folder. Add the path of a folder with {CONFIG_FILE} and weights.")
    folder = Path(name.removeprefix(LOCAL_PREFIX))
    with suppress(RuntimeError):  # an unknown ~user: the path stays unchanged and is reported as missing
        folder = folder.expanduser()
    try:
        return folder.absolute()
    except OSError:  # the working folder is gone: reported as missing
        return folder


@dataclass(frozen=True)
class ModelFolder:
    """A model folder with a valid configuration: open_clip's `model_cfg`, and its `text_cfg`."""

    name: str
    path: Path
    config: dict[str, Any]
    text_config: dict[str, Any]


def read_folder(name: str, path: Path) -> ModelFolder:
    """Read and check the configuration of a model folder.

    Raises:
        UnknownModel: there is no such folder.
        ModelUnavailable: the configuration is missing or broken.
        ModelRefused: this version cannot run the model faithfully.
    """
    if not os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises an error if the name is too long
        raise UnknownModel(
            f"there is no folder {path}. `local-dir:` must name a folder with {CONFIG_FILE} and weights."
        )
    config = read_config(path / CONFIG_FILE)
    return ModelFolder(name, path, config, check_text_config(name, config))


def read_config(path: Path) -> dict[str, Any]:
    """Return the `model_cfg` of a configuration file. Raises ModelUnavailable if there is no valid one."""
    try:
        return parse_config(read_json(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelUnavailable(f"{path} is not an open_clip configuration with a model_cfg ({reason})") from error


def parse_config(value: object) -> dict[str, Any]:
    """Return the `model_cfg` of a parsed configuration. Raises ValueError if it or one of its two parts is missing."""
    config: Any = value.get("model_cfg") if isinstance(value, dict) else None
    if not isinstance(config, dict):
        raise ValueError("there is no model_cfg")
    for part in ("text_cfg", "vision_cfg"):
        if not isinstance(config.get(part), dict):
            raise ValueError(f"there is no {part}")
    return config


def read_json(path: Path) -> object:
    """Read a small, untrusted JSON file without blocking on a pipe. Raises OSError or ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        raw = file.read(MAX_CONFIG_BYTES + 1)
    if len(raw) > MAX_CONFIG_BYTES:
        raise ValueError(f"it is larger than {MAX_CONFIG_BYTES:,} bytes")
    return parse_json(raw)


def parse_json(raw: bytes) -> object:
    """Parse untrusted JSON. Raises ValueError for every kind of error."""
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def check_text_config(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return the `text_cfg` of a configuration. Raises ModelRefused if it contains an unsupported setting."""
    text: dict[str, Any] = config["text_cfg"]
    if text.get("text_arch") == "clip":  # open_clip 4's name for the only architecture of open_clip 3
        del text["text_arch"]
    unknown = sorted(set(text) - KNOWN_TEXT_SETTINGS)
    if unknown:
        raise model_not_supported(
            name,
            f"its text_cfg has {unknown[0]} = {_short(text[unknown[0]])}, which this version does not support. "
            "Models that need open_clip 4, such as those with text_arch = 'modern', do not work yet",
        )
    for key, maximum in MAX_SETTINGS.items():
        value = text.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= maximum:
            raise model_not_supported(name, f"its text_cfg has {key} = {_short(value)}; it must be 1 to {maximum:,}")
    for key, setting_type in SETTING_TYPES.items():
        if text.get(key) is not None and not isinstance(text[key], setting_type):
            raise model_not_supported(
                name, f"its text_cfg has {key} = {_short(text[key])}; it must be a {setting_type.__name__}"
            )
    vision_model = config["vision_cfg"].get("timm_model_name") or ""
    if not isinstance(vision_model, str) or ":" in vision_model:  # timm resolves hf-hub:… and local-dir:…
        raise model_not_supported(name, f"its vision tower {_short(vision_model)} would be loaded from elsewhere")
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def find_weights(folder: ModelFolder) -> Path:
    """Return the path of the folder's weights. Raises ModelUnavailable if there are none or the choice is ambiguous."""
    name, path = folder.name, folder.path
    for file in WEIGHTS_FILES:
        if (path / file).is_file():
            return path / file
    others = sorted(file for file in path.iterdir() if file.suffix in WEIGHTS_SUFFIXES and file.is_file())
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(file.name for file in others[:4]) + (", …" if len(others) > 4 else "")
        raise ModelUnavailable(
            f"{name} cannot be loaded: it contains {len(others)} weight files ({names}). Keep only one of them in the "
            "folder."
        )
    raise ModelUnavailable(
        f"{name} cannot be loaded: it contains no weights. Add {', '.join(WEIGHTS_FILES)}, "
        f"or a single file that ends in {', '.join(WEIGHTS_SUFFIXES)}."
    )


def find_code_reference(path: Path) -> str:
    """Return the name of a tokenizer file that refers to Python code, or "" if there is none."""
    for file in ("tokenizer_config.json", "config.json"):
        try:
            value = read_json(path / file)
        except (OSError, ValueError):  # if transformers needs this file, it reports the error
            continue
        if isinstance(value, dict) and value.get("auto_map"):
            return file
    return ""


def check_weights(folder: ModelFolder, weights: Path) -> None:
    """Compare the shapes of the weights with the configuration, before a model is allocated.

    Otherwise, open_clip would interpolate the position embeddings to a different context length, which gives a model
    that nobody trained. Pickles are read with `weights_only`.

    Raises:
        ModelRefused: the shapes differ, or a pickle contains more than weights.
    """
    text = folder.text_config
    width, context = text.get("width", 512), text.get("context_length", 77)
    expected = {
        "token_embedding.weight": (text.get("vocab_size", 49408), width),
        "positional_embedding": (context + bool(text.get("embed_cls")), width),
    }
    shapes = _read_shapes(folder.name, weights)
    for key, shape in expected.items():
        actual = shapes.get(key, shapes.get(f"text.{key}", shape))  # open_clip checks weights with other names
        if actual != shape:
            names = ("tokens", "vocab_size") if key.startswith("token") else ("positions", "context_length")
            raise model_not_supported(
                folder.name,
                f"its weights have {' x '.join(f'{size:,}' for size in actual)} ({names[0]}, width), "
                f"but its text_cfg has {' x '.join(f'{size:,}' for size in shape)} ({names[1]}, width)",
            )


def _read_shapes(name: str, weights: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor in a weight file, by name."""
    if weights.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(weights, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return {key: tuple(tensor.shape) for key, tensor in _load_pickle(name, weights).items()}


def _load_pickle(name: str, weights: Path) -> dict[str, Tensor]:
    """Return the tensors of a file written by `torch.save`: a state dict, or a training checkpoint with one."""
    import pickle

    import torch

    try:
        try:
            value = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files from before torch 1.6 cannot be memory-mapped
            value = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise unsafe_pickle(name, weights) from error
    value = value.get("state_dict", value) if isinstance(value, dict) else value
    if not isinstance(value, dict) or not value:
        raise model_not_supported(name, f"{weights.name} contains no state dict")
    tensors = ((str(key), tensor) for key, tensor in value.items() if isinstance(tensor, torch.Tensor))
    return {key.removeprefix("module."): tensor for key, tensor in tensors}


def unsafe_pickle(name: str, weights: Path) -> ModelRefused:
    return model_not_supported(
        name, f"{weights.name} is a pickle that contains more than weights. Code in a model is never run"
    )
