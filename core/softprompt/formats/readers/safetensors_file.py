"""Safetensors from outside: the header is parsed by hand, since the library's own reader takes the last of duplicate keys.

Format: huggingface/safetensors: 8 bytes of length, a JSON header, then the tensors without holes between them.
"""

from __future__ import annotations

import math
import struct
from typing import Any

from softprompt.errors import FileRefused
from softprompt.formats.readers.tensors import SIZES, Data, Tensor, plain
from softprompt.library.header import MAX_HEADER_BYTES, strict_json

MAX_TENSORS = 20_000
_FIELDS = {"dtype", "shape", "data_offsets"}


def looks_so(raw: bytes) -> bool:
    """Whether the bytes begin as such a file does."""
    return len(raw) > 8 and raw[8:9] == b"{" and raw[5:8] == b"\x00\x00\x00"


def tensors_of(raw: bytes) -> tuple[dict[str, Tensor], dict[str, str], Data]:
    """(tensors by key, the metadata, their numbers). Those of a type that is not known are left out. Raises FileRefused."""
    (length,) = struct.unpack("<Q", raw[:8])
    if length > MAX_HEADER_BYTES:
        raise FileRefused(f"its header has {length:,} bytes: no soft prompt's has more than {MAX_HEADER_BYTES:,}")
    if length > len(raw) - 8:
        raise FileRefused("it is a safetensors file that is cut short")
    try:
        header = strict_json(raw[8 : 8 + length])
    except (ValueError, TypeError, RecursionError) as error:
        raise FileRefused(f"its header cannot be read ({type(error).__name__}: {str(error)[:80]})") from error
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise FileRefused("its header is no list of tensors, or a very long one")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FileRefused("its metadata is something else than texts")
    body = memoryview(raw)[8 + length :]
    places = {key: _place(key, info) for key, info in header.items()}
    end = 0
    for begin, after in sorted(places.values()):
        if begin != end:
            raise FileRefused("its tensors overlap, or have holes between them")
        end = after
    if end != len(body):
        raise FileRefused("it is cut short, or has something behind its tensors")
    known = {
        key: plain(info["dtype"], tuple(info["shape"]), key) for key, info in header.items() if info["dtype"] in SIZES
    }
    return known, metadata, lambda tensor: body[slice(*places[tensor.key])]


def _place(key: str, info: Any) -> tuple[int, int]:
    if not isinstance(info, dict) or info.keys() != _FIELDS or not isinstance(info["dtype"], str):
        raise FileRefused(f"its header describes {key[:60]!r} in another way than safetensors do")
    shape, offsets = info["shape"], info["data_offsets"]
    for numbers in (shape, offsets):
        if (
            not isinstance(numbers, list)
            or len(numbers) > 16
            or not all(type(n) is int and 0 <= n < 1 << 48 for n in numbers)
        ):
            raise FileRefused(f"its header describes {key[:60]!r} in another way than safetensors do")
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise FileRefused(f"its tensor {key[:60]!r} ends before it begins")
    if info["dtype"] in SIZES and math.prod(shape) * SIZES[info["dtype"]] != offsets[1] - offsets[0]:
        raise FileRefused(f"its tensor {key[:60]!r} has another size than its shape says")
    return offsets[0], offsets[1]
