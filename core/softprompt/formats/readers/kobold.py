"""Read KoboldAI soft prompts (a ZIP file with `tensor.npy` and `meta.json`) and NumPy's `.npy` files.

The `.npy` header is parsed here, without NumPy. Formats: KoboldAI-Client, utils.py and aiserver.py (which write
bfloat16 as "V2"); numpy/lib/format.py.
"""

from __future__ import annotations

import math
import re
import struct
from typing import Any

from softprompt.errors import FileRefused
from softprompt.formats.readers.zip_file import Zip
from softprompt.prompts.safetensors_header import strict_json
from softprompt.prompts.tensors import MAX_TENSOR_BYTES, DataReader, Tensor

MAGIC = b"\x93NUMPY"
MAX_HEADER_BYTES, MAX_META_BYTES = 10_000, 1 << 20
# the header of a plain array as NumPy writes it; a record array does not match, because its descr is a list
_HEADER = re.compile(
    rb"\{'descr': ?'([<>|=]?[A-Za-z][0-9]{0,4})', ?'fortran_order': ?(True|False), ?"
    rb"'shape': ?\(((?:[0-9]{1,12}, ?){0,8}(?:[0-9]{1,12})?)\),? ?\}\s*"
)
_DTYPES = {"<f8": "F64", "<f4": "F32", "<f2": "F16", "|V2": "BF16", "<V2": "BF16"}


def is_kobold(zipped: Zip) -> bool:
    return "tensor.npy" in zipped


def from_zip(zipped: Zip) -> tuple[Tensor, DataReader, dict[str, Any]]:
    """Return the tensor, a reader for its data, and the content of meta.json. Raises FileRefused."""
    meta: Any = {}
    if "meta.json" in zipped:
        try:
            meta = strict_json(zipped.read("meta.json", MAX_META_BYTES))
        except (ValueError, TypeError, RecursionError) as error:
            raise FileRefused(f"its meta.json is invalid ({type(error).__name__}: {str(error)[:80]})") from error
        if not isinstance(meta, dict):
            raise FileRefused("its meta.json is not an object")
    tensor, data = from_npy(zipped.read("tensor.npy", MAX_TENSOR_BYTES))
    return tensor, data, meta


def from_npy(raw: bytes) -> tuple[Tensor, DataReader]:
    """Return the tensor and a reader for its data. Raises FileRefused, also for object arrays, which are pickles."""
    if raw[:6] != MAGIC or len(raw) < 12 or raw[6] not in (1, 2, 3):
        raise FileRefused("its .npy data is damaged or has an unknown version")
    (length,), begin = (struct.unpack_from("<H", raw, 8), 10) if raw[6] == 1 else (struct.unpack_from("<I", raw, 8), 12)
    if length > MAX_HEADER_BYTES or begin + length > len(raw):
        raise FileRefused("its .npy data is truncated or its header is too long")
    header = _HEADER.fullmatch(raw[begin : begin + length])
    if header is None:
        raise FileRefused(
            "its .npy header does not describe a plain array. Object arrays are pickles, which are never loaded"
        )
    described, order, sizes = (part.decode() for part in header.groups())
    dtype = _DTYPES.get(described)
    if dtype is None:
        raise FileRefused(f"its .npy array has dtype {described!r}. Use '<f4', '<f2', '<f8' or '|V2' (bfloat16)")
    shape = tuple(int(size) for size in sizes.split(",") if size.strip())
    is_fortran = order == "True"  # the first index varies fastest
    strides = tuple(math.prod(shape[:i] if is_fortran else shape[i + 1 :]) for i in range(len(shape)))
    tensor = Tensor(dtype, shape, "", math.prod(shape), 0, strides)
    return tensor, lambda _: memoryview(raw)[begin + length :]
