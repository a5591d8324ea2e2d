"""Read torch.save files: the ZIP format used since torch 1.6, and the older stream of pickles followed by data.

Nothing is unpickled (see `pickle_parser`). Source: torch/serialization.py.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from softprompt.errors import FileRefused
from softprompt.formats.readers.pickle_parser import Storage, parse_pickle
from softprompt.formats.readers.zip_file import Zip
from softprompt.prompts.tensors import DTYPE_BYTES, MAX_TENSOR_BYTES, DataReader, Tensor

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LEGACY_PREFIX = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little")  # the first bytes of a file in the older format
MAX_PICKLE_BYTES = 8 << 20


def find_archive(zipped: Zip) -> str | None:
    """Return the name of the folder inside a ZIP file from torch, or None if torch did not write the file."""
    folders = [
        name.removesuffix("/data.pkl") for name in zipped.infos if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    return folders[0] if len(folders) == 1 else None


def from_zip(zipped: Zip, archive: str) -> tuple[Any, DataReader]:
    """Return the saved value and a reader for its tensors' data. Raises FileRefused."""
    if f"{archive}/constants.pkl" in zipped:
        raise FileRefused("it is a TorchScript program, not a soft prompt")
    order = f"{archive}/byteorder"
    if order in zipped and zipped.read(order, 16) != b"little":
        raise FileRefused("its data is big-endian. Save it again on a little-endian machine")
    value = parse_pickle(io.BytesIO(zipped.read(f"{archive}/data.pkl", MAX_PICKLE_BYTES)))
    return value, lambda tensor: zipped.read(f"{archive}/data/{tensor.key}", MAX_TENSOR_BYTES)


def from_stream(raw: bytes) -> tuple[Any, DataReader]:
    """Read the older format: five pickles, then each storage's count and numbers. Returns the same as `from_zip`."""
    file = io.BytesIO(raw)
    if parse_pickle(file) != MAGIC or parse_pickle(file) != PROTOCOL:
        raise FileRefused("it is a pickle that torch did not write")
    system = parse_pickle(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FileRefused("its data is big-endian, or the file is damaged")
    storages: dict[str, Storage] = {}
    value = parse_pickle(file, storages)
    keys = parse_pickle(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise FileRefused("its list of storages is damaged")
    if len(set(keys)) != len(keys):
        raise FileRefused("its list of storages has duplicates")
    numbers = _split_storages(memoryview(raw), file.tell(), [storages[key] for key in keys])

    def data(tensor: Tensor) -> memoryview:
        if tensor.key not in numbers:
            raise FileRefused("its list of storages is incomplete")
        return numbers[tensor.key]

    return value, data


def _split_storages(raw: memoryview, at: int, storages: list[Storage]) -> dict[str, memoryview]:
    """Return the data that follows the pickles, by storage key."""
    chunks = {}
    for storage in storages:
        size = storage.count * DTYPE_BYTES[storage.dtype]
        if len(raw) - at < 8 + size or struct.unpack_from("<q", raw, at) != (storage.count,):
            raise FileRefused("its data is truncated or does not match its declared size")
        chunks[storage.key] = raw[at + 8 : at + 8 + size]
        at += 8 + size
    return chunks
