"""Tensors as described in a file, limits on their size, and conversion to float32.

Shapes are checked before any data is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from softprompt.errors import FileRefused
from softprompt.prompts.values import Array

MAX_TENSOR_BYTES = 256 << 20  # per file: twice the size of the largest soft prompt in float32
MAX_TOKENS, MAX_WIDTH = 2048, 16384
MAX_VECTORS = 4096  # soft prompts in one file: CoOp has one per class
MAX_VALUES = MAX_TOKENS * MAX_WIDTH

# bytes per number; vectors must have a dtype from _NUMPY_DTYPES, and for the rest only the size is needed
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
# NumPy has no bfloat16, so its bits are read as the upper half of a float32
_NUMPY_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor whose data has not been read yet.

    Attributes:
        key: names the data in the file, which is `count` numbers of `dtype`.
        offset, strides: which of these numbers belong to the tensor, as in torch (in numbers, not bytes).
        inline: the data of a NumPy array in a pickle, as bytes or as text with one Latin-1 character per byte.
    """

    dtype: str
    shape: tuple[int, ...]
    key: str
    count: int
    offset: int
    strides: tuple[int, ...]
    inline: bytes | bytearray | str | None = field(default=None, repr=False)


DataReader = Callable[[Tensor], "bytes | memoryview"]  # returns all data under a tensor's key


def contiguous(dtype: str, shape: tuple[int, ...], key: str) -> Tensor:
    """Return a contiguous tensor."""
    strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
    return Tensor(dtype, shape, key, math.prod(shape), 0, strides)


def check_layout(tensor: Tensor) -> Tensor:
    """Return the tensor. Raises FileRefused if it extends beyond its data or uses a number twice."""
    if any(size < 0 for size in (*tensor.shape, *tensor.strides, tensor.offset, tensor.count)):
        raise FileRefused("one of its tensors has a negative size, stride or offset")
    if math.prod(tensor.shape) == 0:
        return tensor
    reach = tensor.offset
    for stride, size in sorted(zip(tensor.strides, tensor.shape, strict=True)):
        if size > 1 and stride <= reach - tensor.offset:
            raise FileRefused("one of its tensors is an expanded or overlapping view. Save a contiguous copy instead")
        reach += stride * (size - 1)
    if reach >= tensor.count:
        raise FileRefused("one of its tensors needs more data than the file has")
    return tensor


def read_vectors(tensor: Tensor, data: DataReader, metadata: dict[str, Any]) -> Array:
    """Read a tensor as float32 vectors. Raises FileRefused.

    float32, float16 and bfloat16 values stay exact. If float64 values are rounded, `metadata` gets the key "rounded".

    Shapes:
        (k, width), or (1, width) for a single vector. A three-dimensional tensor gives (classes, k, width) unless its
        first dimension is 1.
    """
    shape = tensor.shape if len(tensor.shape) != 1 else (1, *tensor.shape)
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if tensor.dtype not in _NUMPY_DTYPES:
        raise FileRefused(f"its tensor has dtype {tensor.dtype}. Use F32, F16, BF16 or F64")
    if not 2 <= len(shape) <= 3 or not all(shape):
        raise FileRefused(
            f"its tensor has shape {_format_shape(tensor.shape)}. A soft prompt has shape (tokens, width)"
        )
    if shape[-2] > MAX_TOKENS or shape[-1] > MAX_WIDTH or math.prod(shape) > MAX_VALUES:
        raise FileRefused(
            f"its tensor has shape {_format_shape(tensor.shape)}. "
            f"At most {MAX_TOKENS} tokens of width {MAX_WIDTH} are allowed"
        )
    size = DTYPE_BYTES[tensor.dtype]
    raw = _inline_bytes(check_layout(tensor)) if tensor.inline is not None else data(check_layout(tensor))
    if len(raw) != tensor.count * size:
        raise FileRefused("the data of its tensor does not match its declared size")
    stored = np.frombuffer(raw, dtype=_NUMPY_DTYPES[tensor.dtype])[tensor.offset :]
    strides = [size * stride for stride in tensor.strides]
    numbers = np.lib.stride_tricks.as_strided(stored, tensor.shape, strides, writeable=False).reshape(shape)
    return check_finite(_to_float32(numbers, tensor.dtype == "BF16", metadata))


def _inline_bytes(tensor: Tensor) -> bytes | bytearray:
    if not isinstance(tensor.inline, str):
        return tensor.inline or b""
    try:
        return tensor.inline.encode("latin-1")
    except UnicodeEncodeError as error:
        raise FileRefused("the data of its NumPy array is not bytes") from error


def _to_float32(numbers: Any, is_bfloat16: bool, metadata: dict[str, Any]) -> Array:
    if is_bfloat16:
        wide: Array = (numbers.astype("<u4") << 16).view("<f4")
        return wide
    with np.errstate(over="ignore"):  # values that are too large become infinite, and check_finite rejects them
        converted: Array = np.ascontiguousarray(numbers, dtype="<f4")
    if numbers.dtype.itemsize == 8 and not np.array_equal(converted, numbers):
        metadata["rounded"] = "from float64 to float32"
    return converted


def check_finite(array: Array) -> Array:
    """Return the array. Raises FileRefused if it has infinite values or NaN."""
    if not np.isfinite(array).all():
        raise FileRefused("its tensor has values that are NaN, infinite or too large for float32")
    return array


def _format_shape(shape: tuple[int, ...]) -> str:
    return f"({', '.join(map(str, shape[:6]))}{', …' if len(shape) > 6 else ''})"
