"""A `local-dir:` folder: its open_clip configuration and its file of weights, checked before a library sees them.

Nothing in such a folder is trusted. Reading it imports no library that could run what it names.
"""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.encoders.catalog import LOCAL
from softprompt.errors import ModelRefused, ModelUnavailable, UnknownModel, not_supported

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "open_clip_config.json"
MAX_CONFIG_BYTES = 1 << 20  # bytes; open_clip's own have less than 2,000
# open_clip's own names, the best first; any other name counts where there is only one file of weights
WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pth",
    "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")  # .pt: checkpoints of open_clip's training, such as epoch_3.pt
# what open_clip 3 knows of a text tower: another setting would make another model of the same weights
TEXT_SETTINGS = frozenset(
    (
        "context_length vocab_size hf_tokenizer_name tokenizer_mode tokenizer_kwargs width heads layers mlp_ratio "
        "ls_init_value embed_cls pad_id eos_id no_causal_mask final_ln_after_pool pool_type proj_bias proj_type "
        "output_tokens act_kwargs norm_kwargs block_type qk_norm scaled_cosine_attn scale_heads scale_attn_inner "
        "scale_attn scale_fc hf_model_name hf_model_pretrained hf_proj_type hf_pooler_type"
    ).split()
)
MAX_SETTINGS = {"context_length": 1 << 16, "vocab_size": 1 << 24, "width": 1 << 16, "heads": 1 << 12, "layers": 1 << 10}
KINDS = {"hf_tokenizer_name": str, "hf_model_name": str, "tokenizer_mode": str, "tokenizer_kwargs": dict}


def local_folder(name: str) -> Path:
    """The folder that a `local-dir:` name means."""
    folder = Path(name.removeprefix(LOCAL))
    with suppress(RuntimeError):  # a ~user that does not exist stays as it is, and is then said not to be there
        folder = folder.expanduser()
    return folder.absolute()


@dataclass(frozen=True)
class ModelFolder:
    """A folder that can be tried, and open_clip's `model_cfg` in it, of which `text` is the text tower's part."""

    name: str
    path: Path
    config: dict[str, Any]
    text: dict[str, Any]


def read_folder(name: str, path: Path) -> ModelFolder:
    """Read and check the configuration.

    Raises:
        UnknownModel: there is no such folder.
        ModelUnavailable: the configuration is missing or broken.
        ModelRefused: the configuration asks for what this version would not run faithfully.
    """
    if not path.is_dir():
        raise UnknownModel(f"there is no folder {path}: local-dir: takes a folder with {CONFIG} and weights")
    config = read_config(path / CONFIG)
    return ModelFolder(name, path, config, checked_text(name, config))


def read_config(path: Path) -> dict[str, Any]:
    """Read the `model_cfg` of a configuration; raises ModelUnavailable where there is none."""
    try:
        return parse_config(read_json(path))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelUnavailable(f"{path} is not an open_clip configuration with a model_cfg ({why})") from error


def parse_config(value: object) -> dict[str, Any]:
    """Return the `model_cfg` in a configuration's JSON, with its text and vision parts; raises ValueError."""
    config: Any = value.get("model_cfg") if isinstance(value, dict) else None
    if not isinstance(config, dict):
        raise ValueError("there is no model_cfg")
    for part in ("text_cfg", "vision_cfg"):
        if not isinstance(config.get(part), dict):
            raise ValueError(f"there is no {part}")
    return config


def read_json(path: Path) -> object:
    """Read a small JSON file that nobody vouches for, without waiting for a pipe; raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("it is not a regular file")
        raw = file.read(MAX_CONFIG_BYTES + 1)
    if len(raw) > MAX_CONFIG_BYTES:
        raise ValueError(f"it has more than {MAX_CONFIG_BYTES:,} bytes")
    return parse_json(raw)


def parse_json(raw: bytes) -> object:
    """Parse JSON that nobody vouches for; raises ValueError for whatever is wrong with it."""
    try:
        return json.loads(raw)
    except RecursionError as error:
        raise ValueError("its JSON is nested too deeply") from error


def checked_text(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return the text tower's settings; raises ModelRefused for one that would change what the weights compute."""
    text: dict[str, Any] = config["text_cfg"]
    if text.get("text_arch") == "clip":  # open_clip 4's name for the only architecture of open_clip 3
        del text["text_arch"]
    unknown = sorted(set(text) - TEXT_SETTINGS)
    if unknown:
        raise not_supported(
            name,
            f"its text_cfg has {unknown[0]} = {_short(text[unknown[0]])}, which this version does not know. "
            "Models that need open_clip 4, such as those with text_arch = 'modern', cannot be run yet",
        )
    for key, largest in MAX_SETTINGS.items():
        value = text.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
            raise not_supported(name, f"its text_cfg has {key} = {_short(value)}; it must be 1 to {largest:,}")
    for key, kind in KINDS.items():
        if text.get(key) is not None and not isinstance(text[key], kind):
            raise not_supported(name, f"its text_cfg has {key} = {_short(text[key])}; it must be a {kind.__name__}")
    picture = config["vision_cfg"].get("timm_model_name") or ""
    if not isinstance(picture, str) or ":" in picture:  # timm would look for hf-hub:… or local-dir:… elsewhere
        raise not_supported(name, f"its picture tower, {_short(picture)}, would be loaded from somewhere else")
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def find_weights(folder: ModelFolder) -> Path:
    """Find the one file of weights; raises ModelUnavailable naming what was looked for."""
    name, path = folder.name, folder.path
    for file in WEIGHTS:
        if (path / file).is_file():
            return path / file
    others = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if len(others) == 1:
        return others[0]
    if others:
        names = ", ".join(file.name for file in others[:4]) + (", …" if len(others) > 4 else "")
        raise ModelUnavailable(
            f"{name} cannot be loaded: it has {len(others)} files of weights ({names}). Leave one of them in the folder"
        )
    raise ModelUnavailable(
        f"{name} cannot be loaded: it has no weights. Looked for {', '.join(WEIGHTS)}, "
        f"or one other file that ends in {', '.join(SUFFIXES)}"
    )


def named_code(path: Path) -> str:
    """Return the file of a tokenizer's folder that names Python code to run, "" where none does."""
    for file in ("tokenizer_config.json", "config.json"):
        try:
            value = read_json(path / file)
        except (OSError, ValueError):  # the tokenizer's library says what is wrong with it, if it needs it at all
            continue
        if isinstance(value, dict) and value.get("auto_map"):
            return file
    return ""


def check_weights(folder: ModelFolder, weights: Path) -> None:
    """Hold the shapes in the file of weights against the configuration, before memory is taken for a model.

    open_clip would fit a context of another length by interpolation, which gives a model that nobody trained.
    Pickles are read as weights only. Raises ModelRefused.
    """
    text = folder.text
    width, context = text.get("width", 512), text.get("context_length", 77)
    wanted = {
        "token_embedding.weight": (text.get("vocab_size", 49408), width),
        "positional_embedding": (context + bool(text.get("embed_cls")), width),
    }
    shapes = _shapes(folder.name, weights)
    for key, shape in wanted.items():
        there = shapes.get(key, shapes.get(f"text.{key}", shape))  # other programs' names are left to open_clip
        if there != shape:
            words = ("token rows", "vocab_size") if key.startswith("token") else ("positions", "context_length")
            raise not_supported(
                folder.name,
                f"its weights have {' x '.join(f'{size:,}' for size in there)} for {words[0]} and width, "
                f"its text_cfg {' x '.join(f'{size:,}' for size in shape)} ({words[1]}, width)",
            )


def _shapes(name: str, weights: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a file of weights, by name."""
    if weights.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(weights, framework="numpy") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    return {key: tuple(tensor.shape) for key, tensor in _pickled(name, weights).items()}


def _pickled(name: str, weights: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch.save wrote, be it a state dict or a training checkpoint with one."""
    import pickle

    import torch

    try:
        try:
            value = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # the format before torch 1.6 cannot be mapped
            value = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise holds_code(name, weights) from error
    value = value.get("state_dict", value) if isinstance(value, dict) else value
    if not isinstance(value, dict) or not value:
        raise not_supported(name, f"{weights.name} holds no state dict")
    tensors = ((str(key), tensor) for key, tensor in value.items() if isinstance(tensor, torch.Tensor))
    return {key.removeprefix("module."): tensor for key, tensor in tensors}


def holds_code(name: str, weights: Path) -> ModelRefused:
    """Say that a pickle holds more than weights; what it would run is never run."""
    return not_supported(name, f"{weights.name} is a pickle with more than weights in it; code in a model is never run")
