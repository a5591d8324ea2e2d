"""Reading a soft prompt's file from outside. Here it is only opened: a short-lived child with little memory and time takes it apart."""

from __future__ import annotations

import hashlib
import json
import math
import os
import select
import stat
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

import softprompt
from softprompt.errors import FileRefused
from softprompt.formats.readers.parsed_file import ParsedFile
from softprompt.formats.readers.tensors import MAX_TENSOR_BYTES, MAX_TOKENS, MAX_VALUES, MAX_VECTORS, MAX_WIDTH
from softprompt.prompts.soft_prompt import Array

WALL = 9.0  # seconds for a file
MAX_HEAD_BYTES, MAX_EXTRA_MEMORY_BYTES = (
    32 << 20,
    64 << 20,
)  # bytes of the answer: what is said, and the tensors beside the vectors
FOLDER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
READ_ARE = (
    "What is read: embeddings of AUTOMATIC1111, diffusers, ComfyUI, kohya and SDXL (.safetensors, .pt, .bin, .png cards), KoboldAI's zips, "
    "PEFT folders, CoOp's checkpoints, .npy, exports of softprompt-tui"
)


def read(path: Path | str) -> ParsedFile:
    """What a file, or a PEFT folder, holds. Nothing in it is run. Raises FileRefused: what it is, what was wrong, what would be read."""
    path = Path(path)
    try:
        folder, parts = _opened(path)
        digest = hashlib.sha256()
        for name, raw in parts.items():
            digest.update(name.encode() + raw)
        return _checked(_asked(folder, parts), digest.hexdigest())
    except FileRefused as error:
        raise FileRefused(f"{path} is not read: {error}. {READ_ARE}") from error


def _opened(path: Path) -> tuple[bool, dict[str, bytes]]:
    """(whether it is a folder, its bytes by the names of its files; a file's own is ""). Links are followed: the user has named them."""
    try:
        if not stat.S_ISDIR(path.stat().st_mode):
            return False, {"": _bytes(path)}
        parts = {}
        for name in FOLDER_FILES:
            if (path / name).exists():
                parts[name] = _bytes(path / name)
        return True, parts
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileRefused(f"it cannot be opened ({why})") from error


def _bytes(path: Path) -> bytes:
    """The bytes of a regular file. It is looked at before it is opened too: to open a device may do something."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileRefused("it is a pipe, a device or a socket, and no file")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise FileRefused("it is a pipe, a device or a socket, and no file")
        if found.st_size > MAX_TENSOR_BYTES:
            raise FileRefused(
                f"it has {found.st_size:,} bytes, and a soft prompt's file at most {MAX_TENSOR_BYTES:,}: it may be a whole model or a LoRA"
            )
        return file.read(MAX_TENSOR_BYTES)


def _asked(folder: bool, parts: dict[str, bytes]) -> bytes:
    """The child's answer. Raises FileRefused where it has none."""
    command = [sys.executable, "-P", "-m", "softprompt.formats.readers.sandbox_child"]
    environment = {
        "PYTHONPATH": str(Path(softprompt.__file__).parents[1])
    }  # the same package as here, and nothing else
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, cwd="/"
    )
    assert process.stdin
    assert process.stdout
    feeding = threading.Thread(target=_feed, args=(process.stdin, folder, parts), daemon=True)
    try:
        feeding.start()
        raw = _answer(process.stdout, time.monotonic() + WALL)
        if not raw:
            raise FileRefused("reading it took more memory or time than any soft prompt needs")
        return raw
    finally:
        process.kill()
        process.wait()
        feeding.join()
        process.stdout.close()


def _feed(pipe: IO[bytes], folder: bool, parts: dict[str, bytes]) -> None:
    sizes = [[name, len(raw)] for name, raw in parts.items()]
    with suppress(BrokenPipeError), pipe:  # a child that has ended already has nothing to read
        pipe.write(json.dumps({"folder": folder, "parts": sizes}).encode() + b"\n")
        for raw in parts.values():
            pipe.write(raw)


def _answer(pipe: IO[bytes], until: float) -> bytes:
    """All that comes before the end and the time; nothing where that passes, or where it is too much."""
    most = 8 + MAX_HEAD_BYTES + 4 * MAX_VALUES + MAX_EXTRA_MEMORY_BYTES
    raw = bytearray()
    while len(raw) <= most and (left := until - time.monotonic()) > 0:
        ready, _, _ = select.select([pipe], [], [], left)
        if ready:
            piece = os.read(pipe.fileno(), 1 << 20)
            if not piece:
                return bytes(raw)
            raw += piece
    return b""


def _checked(raw: bytes, sha256: str) -> ParsedFile:
    """The answer as what it says, checked again: who answers may have been taken over by the file."""
    try:
        (length,) = struct.unpack_from("<Q", raw)
        head = json.loads(raw[8 : 8 + length]) if length <= MAX_HEAD_BYTES else {}
        if "refused" in head:
            raise FileRefused(str(head["refused"])[:1000])
        numbers = np.frombuffer(raw, "<f4", offset=8 + length)
        vectors, after = _arrays(head["vectors"], numbers, 0)
        beside: dict[str, dict[str, Array]] = {}
        for key, listed in head["beside"].items():
            beside[key], after = _arrays(listed, numbers, after)
        if after != len(numbers) or not vectors or not all(_is_soft_prompt(array) for array in vectors.values()):
            raise ValueError("other vectors than a soft prompt's")
        if not (isinstance(head["said"], dict) and isinstance(head["format"], str) and isinstance(head["named"], bool)):
            raise TypeError("something else than texts")
        provenance = head["provenance"]
        if not all(isinstance(summary, dict) for summary in provenance.values()):
            raise TypeError("something else than a provenance")
        if provenance.keys() != beside.keys() or (provenance and provenance.keys() != vectors.keys()):
            raise ValueError("a provenance of other soft prompts")
        return ParsedFile(head["format"], vectors, head["said"], provenance, beside, head["named"], sha256)
    except (ValueError, TypeError, KeyError, AttributeError, struct.error, RecursionError, OverflowError) as error:
        raise FileRefused(f"its reader broke off ({type(error).__name__}: {str(error)[:80]})") from error


def _arrays(listed: Any, numbers: Array, at: int) -> tuple[dict[str, Array], int]:
    found: dict[str, Array] = {}
    for name, shape in listed[: MAX_VECTORS + 1]:
        size = math.prod(shape)
        if not isinstance(name, str) or name in found or size < 0 or at + size > len(numbers):
            raise ValueError("an array out of bounds")
        found[name] = numbers[at : at + size].reshape(shape).copy()
        at += size
    return found, at


def _is_soft_prompt(array: Array) -> bool:
    return (
        array.ndim == 2
        and 1 <= array.shape[0] <= MAX_TOKENS
        and 1 <= array.shape[1] <= MAX_WIDTH
        and bool(np.isfinite(array).all())
    )
