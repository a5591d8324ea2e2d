"""Read soft prompts from an untrusted file.

Parsing happens in a short-lived child process with tight memory and time limits.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np

from softprompt.errors import FileRefused, without_stop
from softprompt.formats.readers.parsed_file import ParsedFile
from softprompt.prompts.soft_prompt import Array
from softprompt.prompts.tensors import MAX_TENSOR_BYTES, MAX_TOKENS, MAX_VALUES, MAX_VECTORS, MAX_WIDTH
from softprompt.system.child_process import run_child

TIMEOUT_SECONDS = 9.0  # for one file
MAX_HEAD_BYTES, MAX_EXTRA_TENSOR_BYTES = 32 << 20, 64 << 20  # limits on the child's answer: its JSON, its other tensors
FOLDER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
SUPPORTED_FILES = (
    "Supported: AUTOMATIC1111, diffusers, ComfyUI, kohya and SDXL embeddings (.safetensors, .pt, .bin, .png cards), "
    "KoboldAI zips, PEFT folders, CoOp checkpoints, .npy files and softprompt-tui exports."
)


def read_soft_prompts(path: Path | str) -> ParsedFile:
    """Read a file or a PEFT folder without running any code in it. Raises FileRefused."""
    path = Path(path)
    try:
        is_folder, parts = _read_parts(path)
        digest = hashlib.sha256()
        for name, raw in parts.items():
            digest.update(name.encode() + raw)
        return _parse_answer(_run_child(is_folder, parts), digest.hexdigest())
    except FileRefused as error:
        raise FileRefused(f"cannot read {path}: {without_stop(error)}. {SUPPORTED_FILES}") from error


def _read_parts(path: Path) -> tuple[bool, dict[str, bytes]]:
    """Return whether `path` is a folder, and its contents by file name ("" for a single file).

    Symlinks are followed, because the user chose the path.
    """
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return False, {"": _read_regular_file(path)}
        parts = {}
        for name in FOLDER_FILES:
            if (path / name).exists():
                parts[name] = _read_regular_file(path / name)
        return True, parts
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileRefused(f"it cannot be opened ({reason})") from error


def _read_regular_file(path: Path) -> bytes:
    """Return the bytes of a regular file.

    The type is also checked before opening, because opening a device can have side effects.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileRefused("it is a pipe, device or socket, not a regular file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused("it is a pipe, device or socket, not a regular file")
        if status.st_size > MAX_TENSOR_BYTES:
            raise FileRefused(
                f"it has {status.st_size:,} bytes. At most {MAX_TENSOR_BYTES:,} are allowed. "
                "It may be a whole model or a LoRA"
            )
        return file.read(MAX_TENSOR_BYTES)


def _run_child(is_folder: bool, parts: dict[str, bytes]) -> bytes:
    """Return the child's answer. Raises FileRefused if there is none."""
    sizes = [[name, len(raw)] for name, raw in parts.items()]
    head = json.dumps({"folder": is_folder, "parts": sizes}).encode() + b"\n"
    max_bytes = 8 + MAX_HEAD_BYTES + 4 * MAX_VALUES + MAX_EXTRA_TENSOR_BYTES
    raw = run_child("softprompt.formats.readers.sandbox_child", (head, *parts.values()), TIMEOUT_SECONDS, max_bytes)
    if not raw:
        raise FileRefused("reading it took too much memory or time for a soft prompt")
    return raw


def _parse_answer(raw: bytes, sha256: str) -> ParsedFile:
    """Parse and check the child's answer. A hostile file may have taken over the child, so nothing is trusted."""
    try:
        (length,) = struct.unpack_from("<Q", raw)
        head = json.loads(raw[8 : 8 + length]) if length <= MAX_HEAD_BYTES else {}
        if "refused" in head:
            raise FileRefused(str(head["refused"])[:1000])
        numbers = np.frombuffer(raw, "<f4", offset=8 + length)
        vectors, after = _unpack_arrays(head["vectors"], numbers, 0)
        extra: dict[str, dict[str, Array]] = {}
        for key, shapes in head["beside"].items():
            extra[key], after = _unpack_arrays(shapes, numbers, after)
        if after != len(numbers) or not vectors or not all(_is_soft_prompt(array) for array in vectors.values()):
            raise ValueError("the vectors do not form soft prompts")
        if not (isinstance(head["said"], dict) and isinstance(head["format"], str) and isinstance(head["named"], bool)):
            raise TypeError("the description has the wrong type")
        provenance = head["provenance"]
        if not all(isinstance(summary, dict) for summary in provenance.values()):
            raise TypeError("the provenance has the wrong type")
        if provenance.keys() != extra.keys() or (provenance and provenance.keys() != vectors.keys()):
            raise ValueError("the provenance describes different soft prompts")
        return ParsedFile(head["format"], vectors, head["said"], provenance, extra, head["named"], sha256)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError, OverflowError) as error:
        raise FileRefused(f"its reader failed ({type(error).__name__}: {str(error)[:80]})") from error


def _unpack_arrays(shapes: Any, numbers: Array, at: int) -> tuple[dict[str, Array], int]:
    """Return the arrays by name, and the index in `numbers` just past the last value used."""
    arrays: dict[str, Array] = {}
    for name, shape in shapes[: MAX_VECTORS + 1]:
        size = math.prod(shape)
        if not isinstance(name, str) or name in arrays or size < 0 or at + size > len(numbers):
            raise ValueError("an array is out of bounds")
        arrays[name] = numbers[at : at + size].reshape(shape).copy()
        at += size
    return arrays, at


def _is_soft_prompt(array: Array) -> bool:
    return (
        array.ndim == 2
        and 1 <= array.shape[0] <= MAX_TOKENS
        and 1 <= array.shape[1] <= MAX_WIDTH
        and bool(np.isfinite(array).all())
    )
