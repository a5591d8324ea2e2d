"""What the files of a language model say about it, read without torch. Nothing in them is trusted."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from softprompt.encoders.causal_lm.folder import CONFIG_FILE, FAMILIES, INDEX_FILE, WEIGHTS_FILE, shard_names
from softprompt.encoders.model_folder import parse_json, read_json
from softprompt.errors import ModelUnavailable
from softprompt.system.paths import cache_folder

PARTIAL_PREFIX = ".partial-"  # of a folder that is being written or deleted
MAX_HEADER_BYTES = 1 << 24  # of a safetensors file; the header of a model with 1,000 layers has a tenth of that
MAX_SHAPE = 1 << 32
# settings of a configuration, in order of preference: GPT-2 has other names, and OPT a smaller token table
_WIDTHS = ("word_embed_proj_dim", "hidden_size", "n_embd")
_LAYERS = ("num_hidden_layers", "n_layer")
_CONTEXTS = ("max_position_embeddings", "n_positions")


class Sizes(NamedTuple):
    """The sizes of a language model. 0 means unknown."""

    width: int = 0
    layers: int = 0
    context: int = 0
    parameters: int = 0


def converted_folder(stem: str, sha256: str) -> Path:
    """Return the folder of a converted GGUF file, whether it exists or not. `stem` is the file's name."""
    return cache_folder() / "gguf" / f"{stem[:80]}-{sha256}"


def is_causal_folder(folder: Path) -> bool:
    """Return whether a folder has the configuration of a supported language model."""
    model_type = _read_config(folder).get("model_type")
    return isinstance(model_type, str) and model_type in FAMILIES


def find_weight_files(folder: Path) -> tuple[Path, ...]:
    """Return the paths of a model's weights, or () if a file is missing."""
    if (folder / WEIGHTS_FILE).is_file():
        return (folder / WEIGHTS_FILE,)
    try:
        paths = tuple(folder / name for name in shard_names(folder / INDEX_FILE))
    except ModelUnavailable:
        return ()
    return paths if all(path.is_file() for path in paths) else ()


def read_sizes(folder: Path) -> Sizes:
    """Return what the configuration and the headers of the weights say."""
    config = _read_config(folder)
    width, layers, context = (_first_number(config, names) for names in (_WIDTHS, _LAYERS, _CONTEXTS))
    return Sizes(width, layers, context, sum(map(_count_parameters, find_weight_files(folder))))


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = read_json(folder / CONFIG_FILE)
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _first_number(config: dict[str, Any], names: tuple[str, ...]) -> int:
    return next((value for name in names if type(value := config.get(name)) is int and value > 0), 0)


def _count_parameters(file: Path) -> int:
    try:
        return _count_in_header(file, file.stat().st_mtime_ns)
    except OSError:
        return 0


@lru_cache(maxsize=256)  # the models screen asks every two seconds
def _count_in_header(file: Path, _changed: int) -> int:
    """Return the number of parameters that the header of a safetensors file lists, or 0 if it is damaged."""
    with file.open("rb") as raw:
        length = int.from_bytes(raw.read(8), "little")
        header = raw.read(length) if length <= MAX_HEADER_BYTES else b""
    try:
        tensors = parse_json(header)
        if not isinstance(tensors, dict):
            return 0
        return sum(_tensor_size(tensor["shape"]) for name, tensor in tensors.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError):
        return 0


def _tensor_size(shape: object) -> int:
    if not isinstance(shape, list) or not all(type(size) is int and 0 <= size < MAX_SHAPE for size in shape[:9]):
        raise ValueError("it is no shape")
    return math.prod(shape[:8])
