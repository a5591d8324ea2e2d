"""Read safetensors files. The header is parsed here, because the safetensors library accepts duplicate keys.

Format (huggingface/safetensors): the header's length in 8 bytes, a JSON header, then the tensors without gaps.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from softprompt.errors import FileRefused
from softprompt.prompts.safetensors_header import MAX_HEADER_BYTES, strict_json
from softprompt.prompts.tensors import DTYPE_BYTES, DataReader, Tensor, contiguous

MAX_TENSORS = 20_000
_FIELDS = {"dtype", "shape", "data_offsets"}


def is_safetensors(raw: bytes) -> bool:
    """Return whether the bytes start like a safetensors file."""
    return len(raw) > 8 and raw[8:9] == b"{" and raw[5:8] == b"\x00\x00\x00"


def read_tensors(raw: bytes) -> tuple[dict[str, Tensor], dict[str, str], DataReader]:
    """Return the tensors of known dtypes by key, the metadata, and a reader for the data. Raises FileRefused."""
    (length,) = struct.unpack("<Q", raw[:8])
    if length > MAX_HEADER_BYTES:
        raise FileRefused(f"its header has {length:,} bytes. At most {MAX_HEADER_BYTES:,} are allowed")
    if length > len(raw) - 8:
        raise FileRefused("it is a truncated safetensors file")
    try:
        header = strict_json(raw[8 : 8 + length])
    except (ValueError, TypeError, RecursionError) as error:
        raise FileRefused(f"its header is invalid ({type(error).__name__}: {str(error)[:80]})") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise FileRefused("its header is not an object or lists too many tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileRefused("its metadata has values that are not strings")
    body = memoryview(raw)[8 + length :]
    ranges = {key: _tensor_range(key, info) for key, info in header.items()}
    end = 0
    for begin, next_end in sorted(ranges.values()):
        if begin != end:
            raise FileRefused("its tensors overlap or have gaps between them")
        end = next_end
    if end != len(body):
        raise FileRefused("it is truncated or has extra bytes after its tensors")
    known = {
        key: contiguous(info["dtype"], tuple(info["shape"]), key)
        for key, info in header.items()
        if info["dtype"] in DTYPE_BYTES
    }
    return known, metadata, lambda tensor: body[slice(*ranges[tensor.key])]


def _tensor_range(key: str, info: Any) -> tuple[int, int]:
    if not isinstance(info, dict) or info.keys() != _FIELDS or not isinstance(info["dtype"], str):
        raise FileRefused(f"its header has an invalid entry for tensor {key[:60]!r}")
    shape, offsets = info["shape"], info["data_offsets"]
    for numbers in (shape, offsets):
        if (
            not isinstance(numbers, list)
            or len(numbers) > 16
            or not all(type(number) is int and 0 <= number < 1 << 48 for number in numbers)
        ):
            raise FileRefused(f"its header has an invalid entry for tensor {key[:60]!r}")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FileRefused(f"its tensor {key[:60]!r} has invalid offsets: it ends before it begins")
    if info["dtype"] in DTYPE_BYTES and math.prod(shape) * DTYPE_BYTES[info["dtype"]] != offsets[1] - offsets[0]:
        raise FileRefused(f"the size of its tensor {key[:60]!r} does not match its shape")
    return offsets[0], offsets[1]
