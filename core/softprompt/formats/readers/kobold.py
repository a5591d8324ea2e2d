"""KoboldAI's soft prompts: a zip with `tensor.npy` and `meta.json`; and numpy's own `.npy`, which is read by hand here.

Formats: KoboldAI-Client, utils.py and aiserver.py; numpy/lib/format.py. bfloat16 is written as "V2".
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

from softprompt.errors import FileRefused
from softprompt.formats.readers.tensors import MAX_TENSOR_BYTES, Data, Tensor
from softprompt.formats.readers.zip_file import Zip
from softprompt.library.header import strict_json

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES, MAX_META_BYTES = 10_000, 1 << 20  # bytes
# as numpy writes it; an array of records has a list as its descr, and is none of these
_HEADER = re.compile(
    rb"\{'descr': ?'([<>|=]?[A-Za-z][0-9]{0,4})', ?'fortran_order': ?(True|False), ?'shape': ?\(((?:[0-9]{1,12}, ?){0,8}(?:[0-9]{1,12})?)\),? ?\}\s*"
)
_DTYPES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "|V2": "BF16", "<V2": "BF16"}


def is_kobold(zipped: Zip) -> bool:
    return "tensor.npy" in zipped


def from_zip(zipped: Zip) -> tuple[Tensor, Data, dict[str, Any]]:
    """(its tensor, the numbers, what meta.json says). Raises FileRefused."""
    meta: Any = {}
    if "meta.json" in zipped:
        try:
            meta = strict_json(zipped.read("meta.json", MAX_META_BYTES))
        except (ValueError, TypeError, RecursionError) as error:
            raise FileRefused(f"its meta.json cannot be read ({type(error).__name__}: {str(error)[:80]})") from error
        if not isinstance(meta, dict):
            raise FileRefused("its meta.json is no object")
    tensor, data = from_npy(zipped.read("tensor.npy", MAX_TENSOR_BYTES))
    return tensor, data, meta


def from_npy(raw: bytes) -> tuple[Tensor, Data]:
    """(its array as a tensor, the numbers). Raises FileRefused; object arrays, which are pickles, among others."""
    if raw[:6] != MAGIC or len(raw) < 12 or raw[6] not in (1, 2, 3):
        raise FileRefused("its .npy is damaged, or of an unknown version")
    (length,), begin = (struct.unpack_from("<H", raw, 8), 10) if raw[6] == 1 else (struct.unpack_from("<I", raw, 8), 12)
    if length > MAX_HEADER_BYTES or begin + length > len(raw):
        raise FileRefused("its .npy is cut short, or has a header that is too long")
    header = _HEADER.fullmatch(raw[begin : begin + length])
    if header is None:
        raise FileRefused(
            "its .npy has a header that says something else than a plain array: objects in it would be pickles"
        )
    described, order, sizes = (part.decode() for part in header.groups())
    dtype = _DTYPES.get(described)
    if dtype is None:
        raise FileRefused(f"its .npy is of {described!r}: '<f4', '<f2', '<f8' and '|V2' (bfloat16) are read")
    shape = tuple(int(size) for size in sizes.split(",") if size.strip())
    before = order == "True"  # in Fortran's order the first index runs fastest
    strides = tuple(math.prod(shape[:i] if before else shape[i + 1 :]) for i in range(len(shape)))
    tensor = Tensor(dtype, shape, "", math.prod(shape), 0, strides)
    return tensor, lambda _: memoryview(raw)[begin + length :]
