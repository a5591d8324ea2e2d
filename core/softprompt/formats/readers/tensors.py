"""Tensors as files describe them, their bounds, and their numbers as float32. Nothing is read before its shape has been checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softprompt.errors import FileRefused
from softprompt.prompts.soft_prompt import Array

MAX_TENSOR_BYTES = 256 << 20  # bytes of a file: twice the largest soft prompt in float32
MAX_TOKENS, MAX_WIDTH = 2048, 16384
MAX_VECTORS = 4096  # soft prompts in one file: CoOp has one for each class
MAX_VALUES = MAX_TOKENS * MAX_WIDTH

# bytes of a number; those of _READ become float32, of the others only the size is looked at
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_READ = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}  # numpy has no bfloat16: the upper half of a float32


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor that is not read yet: `count` numbers of `dtype` lie under `key` in its file, and `offset` and `strides` say which are meant.

    A numpy array in a pickle has its numbers `inline`, as bytes or as a text of so many characters in Latin-1.
    """

    dtype: str
    shape: tuple[int, ...]
    key: str
    count: int
    offset: int
    strides: tuple[int, ...]
    inline: bytes | bytearray | str | None = field(default=None, repr=False)


Data = Callable[[Tensor], "bytes | memoryview"]  # all numbers under a tensor's key


def plain(dtype: str, shape: tuple[int, ...], key: str) -> Tensor:
    """A tensor whose numbers lie one after another."""
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return Tensor(dtype, shape, key, math.prod(shape), 0, strides)


def check_layout(tensor: Tensor) -> Tensor:
    """The tensor; raises FileRefused where it reaches beyond its numbers, or uses one of them twice."""
    if any(size < 0 for size in (*tensor.shape, *tensor.strides, tensor.offset, tensor.count)):
        raise FileRefused("one of its tensors has a negative size, stride or offset")
    if math.prod(tensor.shape) == 0:
        return tensor
    reach = tensor.offset
    for stride, size in sorted(zip(tensor.strides, tensor.shape, strict=True)):
        if size > 1 and stride <= reach - tensor.offset:
            raise FileRefused(
                "one of its tensors is an expanded or overlapping view, in which a few numbers stand for many: save a contiguous copy"
            )
        reach += stride * (size - 1)
    if reach >= tensor.count:
        raise FileRefused("one of its tensors reaches beyond its numbers")
    return tensor


def vectors_of(tensor: Tensor, data: Data, said: dict[str, Any]) -> Array:
    """(k, width) float32, or (cls, k, width) where the tensor has three dimensions and the first is not 1; a single vector is (1, width).

    float32, float16 and bfloat16 keep every bit; what float64 loses is told in `said`. Raises FileRefused.
    """
    shape = tensor.shape if len(tensor.shape) != 1 else (1, *tensor.shape)
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if tensor.dtype not in _READ:
        raise FileRefused(f"its tensor is of {tensor.dtype}: vectors are F32, F16, BF16 or F64")
    if not 2 <= len(shape) <= 3 or not all(shape):
        raise FileRefused(f"its tensor has the shape {_shown(tensor.shape)}: a soft prompt's is (tokens, width)")
    if shape[-2] > MAX_TOKENS or shape[-1] > MAX_WIDTH or math.prod(shape) > MAX_VALUES:
        raise FileRefused(
            f"its tensor has the shape {_shown(tensor.shape)}: at most {MAX_TOKENS} tokens of width {MAX_WIDTH} are read"
        )
    size = SIZES[tensor.dtype]
    raw = _inline(check_layout(tensor)) if tensor.inline is not None else data(check_layout(tensor))
    if len(raw) != tensor.count * size:
        raise FileRefused("the numbers of its tensor are not as many as it says")
    stored = np.frombuffer(raw, dtype=_READ[tensor.dtype])[tensor.offset :]
    strides = [size * stride for stride in tensor.strides]
    numbers = np.lib.stride_tricks.as_strided(stored, tensor.shape, strides, writeable=False).reshape(shape)
    return finite(_float32(numbers, tensor.dtype == "BF16", said))


def _inline(tensor: Tensor) -> bytes | bytearray:
    if not isinstance(tensor.inline, str):
        return tensor.inline or b""
    try:
        return tensor.inline.encode("latin-1")
    except UnicodeEncodeError as error:
        raise FileRefused("the numbers of its numpy array are no bytes") from error


def _float32(numbers: Any, is_bfloat16: bool, said: dict[str, Any]) -> Array:
    if is_bfloat16:
        wide: Array = (numbers.astype("<u4") << 16).view("<f4")
        return wide
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        made: Array = np.ascontiguousarray(numbers, dtype="<f4")
    if numbers.dtype.itemsize == 8 and not np.array_equal(made, numbers):
        said["rounded"] = "from float64 to float32"
    return made


def finite(array: Array) -> Array:
    """The array; raises FileRefused for numbers that are none."""
    if not np.isfinite(array).all():
        raise FileRefused("some of its numbers are infinite, or no numbers at all, or too large for float32")
    return array


def _shown(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape[:6]))}{', …' if len(shape) > 6 else ''})"
