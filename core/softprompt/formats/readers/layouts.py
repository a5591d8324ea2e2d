"""Recognize from its keys which program wrote a file, and read the soft prompts in the file."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from softprompt.errors import FileRefused
from softprompt.formats.readers.parsed_file import ParsedFile
from softprompt.formats.readers.pickle_parser import OpaqueObject
from softprompt.prompts.soft_prompt import Array
from softprompt.prompts.tensors import MAX_VALUES, MAX_VECTORS, DataReader, Tensor, read_vectors

MAX_NOTE_LENGTH, MAX_KEY_LENGTH, MAX_NOTES = 4000, 200, 60  # characters of a value, characters of a key, entries
LEFT_OUT = "left out"
_STANDARD_KEYS = {"sd_checkpoint": "checkpoint_hash", "sd_checkpoint_name": "checkpoint"}
_BUNDLED = re.compile(r"bundle_emb\.(.*)\.(string_to_param\.\*|clip_l|clip_g)", re.DOTALL)
_PARAMETER = re.compile(
    r"[\w-]+(\.[\w-]+)+"
)  # the name of a module parameter; files with several tokens have no such keys
# Keys of files with one tensor per text encoder:
# - kohya-ss/sd-scripts, sdxl_train_textual_inversion.py: clip_l and clip_g
# - diffusers' pivotal tuning, examples/advanced_diffusion_training: clip_l and clip_g for SDXL, clip_l and t5 for Flux.
#   Its first versions use text_encoders_0 and text_encoders_1 for both. Each row belongs to one of the tokens <s0>,
#   <s1>, … of one concept
# - ComfyUI, comfy/text_encoders: clip_l, clip_g, clip_h and t5xxl
_CLIP, _T5 = ("clip_l", "clip_g", "clip_h"), ("t5", "t5xxl")
_PIVOTAL = ("text_encoders_0", "text_encoders_1")
_T5_WIDTH = 4096


def parse_value(value: Any, data: DataReader, metadata: dict[str, Any]) -> ParsedFile:
    """Read the soft prompts in a value that contains tensors, such as the dict in a .pt file. Raises FileRefused.

    Args:
        data: reads the numbers of a tensor.
        metadata: the file's metadata so far. Metadata in the value is added.
    """
    reader = _Reader(data, metadata)
    if isinstance(value, Tensor):
        return reader.read_single("a single tensor", "", value)
    if isinstance(value, list):
        return reader.read_list(value)
    if not isinstance(value, dict):
        raise FileRefused("it contains neither a tensor nor a dict of tensors")
    if "string_to_param" in value:
        return reader.read_a1111(value)
    if any(isinstance(value.get(key), Tensor) for key in (*_CLIP, *_T5, *_PIVOTAL)):
        return reader.read_encoders(value)
    bundled = {match: value[key] for key in value if isinstance(key, str) and (match := _BUNDLED.fullmatch(key))}
    if bundled:
        return reader.read_bundled(bundled)
    if isinstance(value.get("state_dict"), dict):
        return reader.read_coop(value)
    for key, format in (
        ("emb_params", "emb_params (AUTOMATIC1111, ComfyUI, kohya)"),
        ("prompt_embeddings", "PEFT prompt tuning"),
    ):
        if isinstance(value.get(key), Tensor):
            return reader.read_single(format, "", value[key], len(value) - 1)
    return reader.read_tokens(value)


class _Reader:
    """Collects the soft prompts found in one parsed value."""

    def __init__(self, data: DataReader, metadata: dict[str, Any]) -> None:
        self.data, self.metadata = data, metadata
        self.vectors: dict[str, Array] = {}
        self.value_count = 0

    def add(self, name: str, array: Array) -> None:
        self.value_count += array.size
        if name in self.vectors or len(self.vectors) >= MAX_VECTORS or self.value_count > MAX_VALUES:
            raise FileRefused(
                f"it has more than {MAX_VECTORS:,} soft prompts or {MAX_VALUES:,} values, or two with the same name"
            )
        self.vectors[name] = array

    def read_matrix(self, tensor: Any) -> Array:
        if not isinstance(tensor, Tensor):
            raise FileRefused("one of its soft prompts is not a tensor")
        if len(tensor.shape) == 3 and tensor.shape[0] != 1:
            raise FileRefused("its tensor has three dimensions. A soft prompt has shape (tokens, width)")
        return read_vectors(tensor, self.data, self.metadata)

    def finish(self, format: str, left_out: int = 0, keys_are_names: bool = False) -> ParsedFile:
        if left_out:
            self.metadata[LEFT_OUT] = (
                f"{left_out} other {'tensor' if left_out == 1 else 'tensors or values'} in the file"
            )
        return ParsedFile(format, self.vectors, self.metadata, keys_are_names=keys_are_names)

    def read_single(self, format: str, name: str, tensor: Tensor, left_out: int = 0) -> ParsedFile:
        self.add(name, self.read_matrix(tensor))
        return self.finish(format, left_out)

    def read_a1111(self, value: dict[Any, Any]) -> ParsedFile:
        tensors = value["string_to_param"]
        if isinstance(tensors, OpaqueObject):  # the original textual inversion saved a torch ParameterDict
            tensors = tensors.state.get("_parameters") if isinstance(tensors.state, dict) else None
        if not isinstance(tensors, dict) or not tensors:
            raise FileRefused("its string_to_param is not a dict of tensors")
        for key, tensor in tensors.items():
            self.add("" if len(tensors) == 1 else _clean_key(key), self.read_matrix(tensor))
        add_metadata(
            self.metadata,
            {key: item for key, item in value.items() if key not in ("string_to_param", "string_to_token")},
        )
        return self.finish("AUTOMATIC1111 embedding")

    def read_encoders(self, value: dict[Any, Any]) -> ParsedFile:
        """Read one soft prompt per CLIP encoder. T5 is read only if alone, because no encoder here can use it."""
        tensors = {key: value[key] for key in (*_CLIP, *_T5) if key in value}
        for key, encoder in zip(_PIVOTAL, ("clip_l", "clip_g"), strict=True):
            if isinstance(tensor := value.get(key), Tensor):
                tensors.setdefault("t5" if tensor.shape[-1:] == (_T5_WIDTH,) else encoder, tensor)
        selected = [key for key in tensors if key in _CLIP] or list(tensors)
        for key in selected:
            self.add(key, self.read_matrix(tensors[key]))
        parsed = self.finish(_encoder_format(list(tensors)), len(value) - len(tensors))
        if skipped := [key for key in tensors if key not in selected]:
            others = self.metadata.get(LEFT_OUT)
            description = f"{' and '.join(skipped)}, which is for a T5 encoder"
            self.metadata[LEFT_OUT] = f"{description}; {others}" if others else description
        return parsed

    def read_bundled(self, bundled: dict[re.Match[str], Any]) -> ParsedFile:
        for match, tensor in bundled.items():
            name, part = match[1], match[2]
            self.add(_clean_key(f"{name} {part}" if part in _CLIP else name), self.read_matrix(tensor))
        return self.finish("embeddings bundled with a LoRA (bundle_emb)", keys_are_names=True)

    def read_coop(self, value: dict[Any, Any]) -> ParsedFile:
        """Read CoOp's prompt learner: `ctx` is (n, width) if all classes share it, otherwise (classes, n, width)."""
        context = value["state_dict"].get("ctx")
        if not isinstance(context, Tensor):
            raise FileRefused("it is a checkpoint without `ctx`, so it is a whole model, not a soft prompt")
        array = read_vectors(context, self.data, self.metadata)
        if array.ndim == 2:
            self.add("", array)
        else:
            for i, part in enumerate(array, 1):
                self.add(f"class {i}", part)
        add_metadata(self.metadata, {key: value[key] for key in ("epoch", "val_result") if key in value})
        return self.finish("CoOp context")

    def read_list(self, value: list[Any]) -> ParsedFile:
        """Read a list of dicts of tensors. As in ComfyUI, tensors of the same width are concatenated."""
        tensors = [tensor for item in value[:MAX_VECTORS] if isinstance(item, dict) for tensor in item.values()]
        widths: dict[int, list[Array]] = {}
        for tensor in tensors:
            array = self.read_matrix(tensor)
            widths.setdefault(array.shape[1], []).append(array)
        if not widths:
            raise FileRefused("its list contains no tensors")
        for width, arrays in widths.items():
            self.add("" if len(widths) == 1 else f"width {width}", np.concatenate(arrays))
        return self.finish("a list of tensors (ComfyUI)")

    def read_tokens(self, value: dict[Any, Any]) -> ParsedFile:
        """Read the tokens that diffusers writes: {token: vectors} or {token: vector, token_1: vector, …}."""
        tensors = {key: tensor for key, tensor in value.items() if isinstance(tensor, Tensor)}
        if not tensors:
            raise FileRefused("it has no tensor where a soft prompt's vectors should be")
        if len(tensors) > 1:
            _check_tokens(tensors)
        for key, series in _group_numbered_keys(tensors).items():
            self.add(_clean_key(key), np.concatenate([self.read_matrix(tensors[member]) for member in series]))
        add_metadata(self.metadata, {key: item for key, item in value.items() if key not in tensors})
        several = "several tokens, each with" if len(self.vectors) > 1 else "a token and"
        return self.finish(f"{several} its vectors (diffusers)", keys_are_names=True)


def _encoder_format(keys: list[str]) -> str:
    """Return the format name for a file with one tensor for each of these encoders."""
    t5 = any(key in _T5 for key in keys)
    match ("clip_l" in keys, "clip_g" in keys, t5):
        case (True, True, False):
            kind = "SDXL embedding"
        case (True, True, True):
            kind = "Stable Diffusion 3 embedding"
        case (True, False, True):
            kind = "Flux embedding"
        case _:
            kind = "embedding of one text encoder" if len(keys) == 1 else "embedding of several text encoders"
    return f"{kind} ({', '.join(keys)})"


def _check_tokens(tensors: dict[Any, Tensor]) -> None:
    """Raise FileRefused if the tensors look like a model or a LoRA rather than several tokens."""
    widths = {tensor.shape[-1:] for tensor in tensors.values()}
    if len(widths) > 1 or any(isinstance(key, str) and _PARAMETER.fullmatch(key) for key in tensors):
        examples = ", ".join(_clean_key(key)[:40] for key in list(tensors)[:4])
        raise FileRefused(
            f"its {len(tensors)} tensors ({examples}, …) are not the tokens of one text encoder. "
            "The file may be a model or a LoRA"
        )


def _group_numbered_keys(tensors: dict[Any, Tensor]) -> dict[Any, list[Any]]:
    """Group keys such as token, token_1, token_2, … if their vectors form one soft prompt, under the first key."""

    def is_vector(key: Any) -> bool:
        return key in tensors and tensors[key].shape[-1:] == (math.prod(tensors[key].shape),)

    series: dict[Any, list[Any]] = {}
    grouped = set()
    for key in sorted(tensors, key=lambda key: len(str(key))):  # the shortest key of a series is its first
        if key in grouped:
            continue
        series[key] = [key]
        while isinstance(key, str) and is_vector(key) and is_vector(following := f"{key}_{len(series[key])}"):
            series[key].append(following)
            grouped.add(following)
    return {key: series[key] for key in tensors if key in series}


def _clean_key(key: Any) -> str:
    return clean_text(key, MAX_KEY_LENGTH)


def clean_text(value: Any, max_length: int) -> str:
    """Return a value from a file as text, truncated to `max_length` characters, with lone surrogates replaced."""
    full = value if isinstance(value, str) else str(value)
    cut = full[:max_length].encode("utf-8", "replace").decode()
    return cut if len(full) <= max_length else f"{cut}…"


def add_metadata(metadata: dict[str, Any], values: dict[Any, Any]) -> None:
    """Add the strings, numbers and short lists in `values`, up to MAX_NOTES entries in total."""
    for key, value in values.items():
        if len(metadata) >= MAX_NOTES:
            return
        if isinstance(value, list) and len(value) <= 40 and all(isinstance(item, (str, int, float)) for item in value):
            value = ", ".join(clean_text(item, MAX_KEY_LENGTH) for item in value)
        if isinstance(value, str):
            value = clean_text(value, MAX_NOTE_LENGTH)
        elif not isinstance(value, (int, float)) or not abs(value) < (1 << 63):
            continue
        if value != "":
            metadata[_STANDARD_KEYS.get(key, _clean_key(key))] = value
