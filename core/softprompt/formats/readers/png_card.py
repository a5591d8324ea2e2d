"""Read AUTOMATIC1111's embedding cards: pictures with an embedding in the text chunk `sd-ti-embedding`.

A1111 also hides the embedding in the pixels, for sites that strip text chunks. A card without the chunk is rejected,
because untrusted pictures are never decoded. Formats: modules/textual_inversion/image_embedding.py; PNG (third
edition), 11.3.3.
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
from softprompt.prompts.safetensors_header import strict_json
from softprompt.prompts.tensors import MAX_VALUES, DataReader, Tensor, contiguous

SIGNATURE = b"\x89PNG\r\n\x1a\n"
KEYWORD = b"sd-ti-embedding"
MAX_TEXT_BYTES = 32 << 20  # decompressed; JSON takes up to 25 bytes per number, plus twice that in memory
MAX_CHUNKS = 100_000
_TEXT_CHUNKS = (b"tEXt", b"zTXt", b"iTXt")


def read_embedding(raw: bytes) -> tuple[Any, DataReader]:
    """Return the value in the text chunk and a reader for its tensors' data. Raises FileRefused."""
    texts = [text for kind, data in _iter_chunks(raw) if (text := _embedding_text(kind, data)) is not None]
    if not texts:
        raise FileRefused(
            "it is a picture without the text chunk sd-ti-embedding. A website may have removed the chunk. The copy "
            "that AUTOMATIC1111 hides in the pixels is not read, because pictures are never decoded. "
            "Use this embedding's .pt file"
        )
    if len(texts) > 1:
        raise FileRefused("it has the text chunk sd-ti-embedding more than once")
    try:
        return from_json(base64.b64decode(texts[0], validate=True))
    except binascii.Error as error:
        raise FileRefused(f"its text chunk is not base64 ({error})") from error


def from_json(text: bytes) -> tuple[Any, DataReader]:
    """Parse a card's JSON, in which a tensor is {"TORCHTENSOR": [[numbers]]}. Returns the same as `read_embedding`."""
    numbers: dict[str, bytes] = {}
    try:
        value = strict_json(text)
        tree = _extract_tensors(value, numbers, 4)
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise FileRefused(f"its JSON is invalid ({type(error).__name__}: {str(error)[:80]})") from error
    return tree, lambda tensor: numbers[tensor.key]


def _extract_tensors(value: Any, numbers: dict[str, bytes], depth: int) -> Any:
    if not isinstance(value, dict) or not depth:
        return value
    if value.keys() == {"TORCHTENSOR"}:
        return _parse_tensor(value["TORCHTENSOR"], numbers)
    return {key: _extract_tensors(item, numbers, depth - 1) for key, item in value.items()}


def _parse_tensor(rows: Any, numbers: dict[str, bytes]) -> Tensor:
    if not isinstance(rows, list) or not rows:
        raise FileRefused("its tensor is empty or not a list")
    is_vector = not isinstance(rows[0], list)
    matrix = [rows] if is_vector else rows
    width = len(matrix[0])
    if not all(isinstance(row, list) and len(row) == width for row in matrix) or width * len(matrix) > MAX_VALUES:
        raise FileRefused("the rows of its tensor differ in length, or it has too many values")
    if not all(type(number) in (float, int) for row in matrix for number in row):
        raise FileRefused("its tensor has values that are not numbers")
    key = str(len(numbers))
    numbers[key] = np.array(matrix, dtype="<f8").tobytes()
    return contiguous("F64", (width,) if is_vector else (len(matrix), width), key)


def _iter_chunks(raw: bytes) -> Iterator[tuple[bytes, memoryview]]:
    view, at = memoryview(raw), len(SIGNATURE)
    for _ in range(MAX_CHUNKS):
        if len(raw) - at < 12:
            raise FileRefused("it is a truncated picture")
        length, kind = struct.unpack_from(">I4s", raw, at)
        if length > len(raw) - at - 12:
            raise FileRefused("it is a truncated picture, or one of its chunks declares more bytes than the file has")
        data = view[at + 8 : at + 8 + length]
        at += 12 + length
        if kind in _TEXT_CHUNKS and zlib.crc32(data, zlib.crc32(kind)) != struct.unpack_from(">I", raw, at - 4)[0]:
            raise FileRefused("one of its text chunks is damaged: its checksum does not match")
        yield kind, data
        if kind == b"IEND":
            return
    raise FileRefused(f"it is a picture with more than {MAX_CHUNKS:,} chunks")


def _embedding_text(kind: bytes, data: memoryview) -> bytes | None:
    """Return the text of a chunk with the keyword, or None for any other chunk."""
    if kind not in _TEXT_CHUNKS or bytes(data[: len(KEYWORD) + 1]) != KEYWORD + b"\0":
        return None
    rest = bytes(data[len(KEYWORD) + 1 :])
    is_compressed, method, text = False, 0, rest
    if kind == b"zTXt":
        is_compressed, method, text = True, rest[0] if rest else 1, rest[1:]
    elif kind == b"iTXt":
        if len(rest) < 2:
            raise FileRefused("its text chunk is truncated")
        is_compressed, method = bool(rest[0]), rest[1]
        text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]  # after the language tag and the translated keyword
    if is_compressed and method != 0:
        raise FileRefused("its text chunk has an unknown compression method")
    return _check_length(_decompress(text) if is_compressed else text)


def _decompress(compressed: bytes) -> bytes:
    decompressor = zlib.decompressobj()
    try:
        return decompressor.decompress(compressed, MAX_TEXT_BYTES + 1)
    except zlib.error as error:
        raise FileRefused(f"its text chunk is damaged ({error})") from error


def _check_length(text: bytes) -> bytes:
    if len(text) > MAX_TEXT_BYTES:
        raise FileRefused(f"its text chunk decompresses to more than {MAX_TEXT_BYTES:,} bytes")
    return text
