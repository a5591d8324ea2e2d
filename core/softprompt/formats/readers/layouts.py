"""Which program's soft prompt it is: by the keys of what was read, whichever kind of file it stood in."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from softprompt.errors import FileRefused
from softprompt.formats.readers.parsed_file import ParsedFile
from softprompt.formats.readers.pickle_parser import Thing
from softprompt.formats.readers.tensors import MAX_VALUES, MAX_VECTORS, Data, Tensor, vectors_of
from softprompt.prompts.soft_prompt import Array

MAX_NOTE_LENGTH, MAX_KEY_LENGTH, MAX_NOTES = 4000, 200, 60  # characters, characters, values
LEFT_OUT = "left out"
_RENAMED = {"sd_checkpoint": "checkpoint_hash", "sd_checkpoint_name": "checkpoint"}
_BUNDLED = re.compile(r"bundle_emb\.(.*)\.(string_to_param\.\*|clip_l|clip_g)", re.DOTALL)
_PARAMETER = re.compile(
    r"[\w-]+(\.[\w-]+)+"
)  # as modules name their parameters; no file of several tokens has such keys
# Encoders that have a tensor each in one file. kohya-ss/sd-scripts, sdxl_train_textual_inversion.py: clip_l and clip_g; diffusers'
# pivotal tuning, examples/advanced_diffusion_training: the same for SDXL, clip_l and t5 for Flux, and in its first versions
# text_encoders_0 and _1 for either, a row for each of the tokens <s0>, <s1>, … that stand for one thing; ComfyUI, comfy/text_encoders:
# clip_l, clip_g, clip_h and t5xxl.
_CLIP, _T5 = ("clip_l", "clip_g", "clip_h"), ("t5", "t5xxl")
_PIVOTAL = ("text_encoders_0", "text_encoders_1")
_T5_WIDTH = 4096


def found_in(value: Any, data: Data, said: dict[str, Any]) -> ParsedFile:
    """The soft prompts in a value with tensors, such as the dict in a .pt; `said` is what the file says beside. Raises FileRefused."""
    read = _Reader(data, said)
    if isinstance(value, Tensor):
        return read.one("a single tensor", "", value)
    if isinstance(value, list):
        return read.listed(value)
    if not isinstance(value, dict):
        raise FileRefused("it holds no tensor, and no dict of tensors")
    if "string_to_param" in value:
        return read.a1111(value)
    if any(isinstance(value.get(key), Tensor) for key in (*_CLIP, *_T5, *_PIVOTAL)):
        return read.encoders(value)
    bundled = {match: value[key] for key in value if isinstance(key, str) and (match := _BUNDLED.fullmatch(key))}
    if bundled:
        return read.bundled(bundled)
    if isinstance(value.get("state_dict"), dict):
        return read.coop(value)
    for key, format in (
        ("emb_params", "emb_params (AUTOMATIC1111, ComfyUI, kohya)"),
        ("prompt_embeddings", "PEFT prompt tuning"),
    ):
        if isinstance(value.get(key), Tensor):
            return read.one(format, "", value[key], len(value) - 1)
    return read.tokens(value)


class _Reader:
    def __init__(self, data: Data, said: dict[str, Any]) -> None:
        self.data, self.said = data, said
        self.vectors: dict[str, Array] = {}
        self.numbers = 0

    def add(self, name: str, array: Array) -> None:
        self.numbers += array.size
        if name in self.vectors or len(self.vectors) >= MAX_VECTORS or self.numbers > MAX_VALUES:
            raise FileRefused("it holds more soft prompts than are read at once, or two of one name")
        self.vectors[name] = array

    def matrix(self, tensor: Any) -> Array:
        if not isinstance(tensor, Tensor):
            raise FileRefused("there is something else where its tensor should be")
        if len(tensor.shape) == 3 and tensor.shape[0] != 1:
            raise FileRefused("its tensor has three dimensions: a soft prompt's is (tokens, width)")
        return vectors_of(tensor, self.data, self.said)

    def found(self, format: str, left_out: int = 0, named: bool = False) -> ParsedFile:
        if left_out:
            self.said[LEFT_OUT] = f"{left_out} other {'tensor' if left_out == 1 else 'tensors or values'} of the file"
        return ParsedFile(format, self.vectors, self.said, named=named)

    def one(self, format: str, name: str, tensor: Tensor, left_out: int = 0) -> ParsedFile:
        self.add(name, self.matrix(tensor))
        return self.found(format, left_out)

    def a1111(self, value: dict[Any, Any]) -> ParsedFile:
        held = value["string_to_param"]
        if isinstance(held, Thing):  # a ParameterDict of torch, as the first textual inversion wrote it
            held = held.state.get("_parameters") if isinstance(held.state, dict) else None
        if not isinstance(held, dict) or not held:
            raise FileRefused("its string_to_param is no dict of tensors")
        for key, tensor in held.items():
            self.add("" if len(held) == 1 else _key(key), self.matrix(tensor))
        say(
            self.said, {key: inner for key, inner in value.items() if key not in ("string_to_param", "string_to_token")}
        )
        return self.found("AUTOMATIC1111 embedding")

    def encoders(self, value: dict[Any, Any]) -> ParsedFile:
        """One soft prompt for each CLIP encoder. T5's is left out where there are others: no text encoder here could use it."""
        tensors = {key: value[key] for key in (*_CLIP, *_T5) if key in value}
        for key, encoder in zip(_PIVOTAL, ("clip_l", "clip_g"), strict=True):
            if isinstance(tensor := value.get(key), Tensor):
                tensors.setdefault("t5" if tensor.shape[-1:] == (_T5_WIDTH,) else encoder, tensor)
        wanted = [key for key in tensors if key in _CLIP] or list(tensors)
        for key in wanted:
            self.add(key, self.matrix(tensors[key]))
        found = self.found(_by_encoders(list(tensors)), len(value) - len(tensors))
        if left := [key for key in tensors if key not in wanted]:
            more = self.said.get(LEFT_OUT)
            words = f"{' and '.join(left)}, which is for a T5 encoder"
            self.said[LEFT_OUT] = f"{words}; {more}" if more else words
        return found

    def bundled(self, bundled: dict[re.Match[str], Any]) -> ParsedFile:
        for match, tensor in bundled.items():
            name, part = match[1], match[2]
            self.add(_key(f"{name} {part}" if part in _CLIP else name), self.matrix(tensor))
        return self.found("embeddings bundled with a LoRA (bundle_emb)", named=True)

    def coop(self, value: dict[Any, Any]) -> ParsedFile:
        """CoOp's prompt learner: one context for all classes, (n, width), or one for each, (classes, n, width)."""
        context = value["state_dict"].get("ctx")
        if not isinstance(context, Tensor):
            raise FileRefused("it is a checkpoint without a `ctx`: a whole model, and no soft prompt")
        array = vectors_of(context, self.data, self.said)
        if array.ndim == 2:
            self.add("", array)
        else:
            for i, part in enumerate(array, 1):
                self.add(f"class {i}", part)
        say(self.said, {key: value[key] for key in ("epoch", "val_result") if key in value})
        return self.found("CoOp context")

    def listed(self, value: list[Any]) -> ParsedFile:
        """A list of dicts of tensors, which ComfyUI puts together as long as they are of one width."""
        tensors = [tensor for one in value[:MAX_VECTORS] if isinstance(one, dict) for tensor in one.values()]
        widths: dict[int, list[Array]] = {}
        for tensor in tensors:
            array = self.matrix(tensor)
            widths.setdefault(array.shape[1], []).append(array)
        if not widths:
            raise FileRefused("it holds a list without tensors")
        for width, arrays in widths.items():
            self.add("" if len(widths) == 1 else f"width {width}", np.concatenate(arrays))
        return self.found("a list of tensors (ComfyUI)")

    def tokens(self, value: dict[Any, Any]) -> ParsedFile:
        """What diffusers writes: {token: vectors}, or {token: vector, token_1: vector, …}; of several tokens each is a soft prompt."""
        tensors = {key: tensor for key, tensor in value.items() if isinstance(tensor, Tensor)}
        if not tensors:
            raise FileRefused("it holds no tensor where a soft prompt's vectors would be")
        if len(tensors) > 1:
            _check_tokens(tensors)
        for key, series in _in_series(tensors).items():
            self.add(_key(key), np.concatenate([self.matrix(tensors[one]) for one in series]))
        say(self.said, {key: inner for key, inner in value.items() if key not in tensors})
        several = "several tokens, each with" if len(self.vectors) > 1 else "a token and"
        return self.found(f"{several} its vectors (diffusers)", named=True)


def _by_encoders(keys: list[str]) -> str:
    """What a file is called that has a tensor for each of these encoders."""
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
    """Raises FileRefused for tensors that are a model's or a LoRA's, and not the vectors of several tokens."""
    widths = {tensor.shape[-1:] for tensor in tensors.values()}
    if len(widths) > 1 or any(isinstance(key, str) and _PARAMETER.fullmatch(key) for key in tensors):
        some = ", ".join(_key(key)[:40] for key in list(tensors)[:4])
        raise FileRefused(
            f"it holds {len(tensors)} tensors that are not the vectors of tokens for one encoder ({some}, …): it may be a model or a LoRA"
        )


def _in_series(tensors: dict[Any, Tensor]) -> dict[Any, list[Any]]:
    """The keys of each soft prompt by its first: token, token_1, token_2, … where each is one vector."""

    def is_vector(key: Any) -> bool:
        return key in tensors and tensors[key].shape[-1:] == (math.prod(tensors[key].shape),)

    series: dict[Any, list[Any]] = {}
    further = set()
    for key in sorted(tensors, key=lambda key: len(str(key))):  # a series' first token is its shortest
        if key in further:
            continue
        series[key] = [key]
        while isinstance(key, str) and is_vector(key) and is_vector(following := f"{key}_{len(series[key])}"):
            series[key].append(following)
            further.add(following)
    return {key: series[key] for key in tensors if key in series}


def _key(key: Any) -> str:
    return text(key, MAX_KEY_LENGTH)


def text(value: Any, longest: int) -> str:
    """A text from outside, cut, without halves of surrogate pairs."""
    whole = value if isinstance(value, str) else str(value)
    cut = whole[:longest].encode("utf-8", "replace").decode()
    return cut if len(whole) <= longest else f"{cut}…"


def say(said: dict[str, Any], values: dict[Any, Any]) -> None:
    """Adds what can be kept of `values`: texts and numbers, and short lists of them."""
    for key, value in values.items():
        if len(said) >= MAX_NOTES:
            return
        if isinstance(value, list) and len(value) <= 40 and all(isinstance(one, (str, int, float)) for one in value):
            value = ", ".join(text(one, MAX_KEY_LENGTH) for one in value)
        if isinstance(value, str):
            value = text(value, MAX_NOTE_LENGTH)
        elif not isinstance(value, (int, float)) or not abs(value) < (1 << 63):
            continue
        if value != "":
            said[_RENAMED.get(key, _key(key))] = value
