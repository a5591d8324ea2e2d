"""Files of torch.save: the zip that it writes since torch 1.6, and the row of pickles with numbers behind them from before.

Source: torch/serialization.py. Neither is unpickled: see `pickles`.
"""

from __future__ import annotations

import io
import struct
from typing import Any

from softprompt.errors import FileRefused
from softprompt.formats.readers.pickle_parser import Storage, values_of
from softprompt.formats.readers.tensors import MAX_TENSOR_BYTES, SIZES, Data, Tensor
from softprompt.formats.readers.zip_file import Zip

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
LEGACY = b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little")  # how such a file begins
MAX_PICKLE_BYTES = 8 << 20  # bytes


def archive_name(zipped: Zip) -> str | None:
    """What the members of torch's zip are under, None where it is no such zip."""
    found = [
        name.removesuffix("/data.pkl") for name in zipped.infos if name.count("/") == 1 and name.endswith("/data.pkl")
    ]
    return found[0] if len(found) == 1 else None


def from_zip(zipped: Zip, archive: str) -> tuple[Any, Data]:
    """(the value that was saved, its tensors' numbers). Raises FileRefused."""
    if f"{archive}/constants.pkl" in zipped:
        raise FileRefused("it is a TorchScript program, and no soft prompt")
    order = f"{archive}/byteorder"
    if order in zipped and zipped.read(order, 16) != b"little":
        raise FileRefused("its numbers are big-endian: save it again on another machine")
    value = values_of(io.BytesIO(zipped.read(f"{archive}/data.pkl", MAX_PICKLE_BYTES)))
    return value, lambda tensor: zipped.read(f"{archive}/data/{tensor.key}", MAX_TENSOR_BYTES)


def from_stream(raw: bytes) -> tuple[Any, Data]:
    """As `from_zip`, for the older format: five pickles, then the numbers of each storage with their count before them."""
    file = io.BytesIO(raw)
    if values_of(file) != MAGIC or values_of(file) != PROTOCOL:
        raise FileRefused("it is a pickle that torch did not write")
    system = values_of(file)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FileRefused("its numbers are big-endian, or it is damaged")
    storages: dict[str, Storage] = {}
    value = values_of(file, storages)
    keys = values_of(file)
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in storages for key in keys):
        raise FileRefused("its list of storages is damaged")
    if len(set(keys)) != len(keys):
        raise FileRefused("its list of storages has one twice")
    numbers = _numbers(memoryview(raw), file.tell(), [storages[key] for key in keys])

    def data(tensor: Tensor) -> memoryview:
        if tensor.key not in numbers:
            raise FileRefused("its list of storages lacks one")
        return numbers[tensor.key]

    return value, data


def _numbers(raw: memoryview, at: int, storages: list[Storage]) -> dict[str, memoryview]:
    """What stands behind the pickles, by the storages' keys."""
    found = {}
    for storage in storages:
        size = storage.count * SIZES[storage.dtype]
        if len(raw) - at < 8 + size or struct.unpack_from("<q", raw, at) != (storage.count,):
            raise FileRefused("its numbers are cut short, or not as many as it says")
        found[storage.key] = raw[at + 8 : at + 8 + size]
        at += 8 + size
    return found
