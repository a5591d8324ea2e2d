"""AUTOMATIC1111's embedding card: a picture whose text chunk `sd-ti-embedding` holds an embedding. The picture is never decoded.

A1111 hides the same embedding in the pixels too, for sites that strip the chunks; reading that would mean decoding pictures from outside,
so that such a card is refused, and the message says so. Formats: modules/textual_inversion/image_embedding.py; PNG (third edition), 11.3.3.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from softprompt.errors import FileRefused
from softprompt.formats.readers.tensors import MAX_VALUES, Data, Tensor, plain
from softprompt.library.header import strict_json

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = b"sd-ti-embedding"
MAX_TEXT_BYTES = 32 << 20  # bytes, unpacked: JSON takes up to 25 a number, in memory twice as many again
MAX_CHUNKS = 100_000
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")


def embedding_of(raw: bytes) -> tuple[Any, Data]:
    """(what the chunk says, its tensors' numbers). Raises FileRefused."""
    texts = [text for kind, data in _chunks(raw) if (text := _text(kind, data)) is not None]
    if not texts:
        raise FileRefused(
            "it is a picture without a text chunk sd-ti-embedding: perhaps a site stripped it. What AUTOMATIC1111 hides in the pixels is "
            "not read, since pictures from outside are not decoded: use the .pt of this embedding"
        )
    if len(texts) > 1:
        raise FileRefused("it has the text chunk sd-ti-embedding twice")
    try:
        return from_json(base64.b64decode(texts[0], validate=True))
    except binascii.Error as error:
        raise FileRefused(f"its text chunk is not base64 ({error})") from error


def from_json(text: bytes) -> tuple[Any, Data]:
    """As `embedding_of`, for the JSON in it, in which a tensor is {"TORCHTENSOR": [[numbers]]}."""
    numbers: dict[str, bytes] = {}
    try:
        said = strict_json(text)
        tree = _with_tensors(said, numbers, 4)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise FileRefused(f"its JSON cannot be read ({type(error).__name__}: {str(error)[:80]})") from error
    return tree, lambda tensor: numbers[tensor.key]


def _with_tensors(value: Any, numbers: dict[str, bytes], depth: int) -> Any:
    if not isinstance(value, dict) or not depth:
        return value
    if value.keys() == {"TORCHTENSOR"}:
        return _tensor(value["TORCHTENSOR"], numbers)
    return {key: _with_tensors(inner, numbers, depth - 1) for key, inner in value.items()}


def _tensor(rows: Any, numbers: dict[str, bytes]) -> Tensor:
    if not isinstance(rows, list) or not rows:
        raise FileRefused("its tensor is empty, or no list")
    flat = not isinstance(rows[0], list)
    listed = [rows] if flat else rows
    width = len(listed[0])
    if not all(isinstance(row, list) and len(row) == width for row in listed) or width * len(listed) > MAX_VALUES:
        raise FileRefused("its tensor's rows are not of one length")
    if not all(type(one) in (float, int) for row in listed for one in row):
        raise FileRefused("its tensor holds something else than numbers")
    key = str(len(numbers))
    numbers[key] = np.array(listed, dtype="<f8").tobytes()
    return plain("F64", (width,) if flat else (len(listed), width), key)


def _chunks(raw: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(raw), len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if len(raw) - at < 12:
            raise FileRefused("it is a picture that is cut short")
        length, kind = struct.unpack_from(">I4s", raw, at)
        if length > len(raw) - at - 12:
            raise FileRefused(
                "it is a picture that is cut short, or one of its chunks says that it is longer than the file"
            )
        data = view[at + 8 : at + 8 + length]
        at += 12 + length
        if kind in _TEXTS and zlib.crc32(data, zlib.crc32(kind)) != struct.unpack_from(">I", raw, at - 4)[0]:
            raise FileRefused("one of its text chunks is damaged: its checksum is another")
        yield kind, data
        if kind == b"IEND":
            return
    raise FileRefused(f"it is a picture of more than {MAX_CHUNKS:,} chunks")


def _text(kind: bytes, data: memoryview) -> bytes | None:
    """The text of a chunk under the keyword, None for any other."""
    if kind not in _TEXTS or bytes(data[: len(KEYWORD) + 1]) != KEYWORD + b"\0":
        return None
    rest = bytes(data[len(KEYWORD) + 1 :])
    packed, method, text = False, 0, rest
    if kind == b"zTXt":
        packed, method, text = True, rest[0] if rest else 1, rest[1:]
    elif kind == b"iTXt":
        if len(rest) < 2:
            raise FileRefused("its text chunk is cut short")
        packed, method = bool(rest[0]), rest[1]
        text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # behind the language and the keyword in it
    if packed and method != 0:
        raise FileRefused("its text chunk is packed in an unknown way")
    return _bounded(_unpacked(text) if packed else text)


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        return unpacker.decompress(packed, MAX_TEXT_BYTES + 1)
    except zlib.error as error:
        raise FileRefused(f"its text chunk is damaged ({error})") from error


def _bounded(text: bytes) -> bytes:
    if len(text) > MAX_TEXT_BYTES:
        raise FileRefused(f"its text chunk has more than {MAX_TEXT_BYTES:,} bytes once it is unpacked")
    return text
