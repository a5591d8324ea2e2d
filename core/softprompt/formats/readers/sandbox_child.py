"""The process in which a file from outside is taken apart: it has little memory and time, opens nothing, starts nothing, and answers once.

stdin: a line of JSON, {"folder": bool, "parts": [[name, bytes], …]}, then those bytes. stdout: 8 bytes of length, as many of JSON, then
float32 numbers; see `sandbox` for both.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import struct
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from softprompt.formats.readers.parsed_file import ParsedFile
    from softprompt.prompts.soft_prompt import Array

MEMORY, SECONDS = 1 << 30, 7  # bytes of address space, seconds of a processor
# What Python would import while a file is read: the reader itself; the codecs of names in a zip, of texts in a pickle, and those that
# `json.loads` finds out from a text's first bytes; what zlib, bz2 and lzma unpack with.
READERS_IMPORT = (
    "softprompt.formats.readers.detect", "lzma", "bz2", "zlib", *(f"encodings.{codec}" for codec in (
        "ascii", "latin_1", "cp437", "raw_unicode_escape", "unicode_escape",
        "utf_8", "utf_8_sig", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be",
    )),
)  # fmt: skip


def limit(kind: int, most: int) -> None:
    """Lowers a limit for good; macOS does not know all of them."""
    with suppress(ValueError, OSError):
        resource.setrlimit(kind, (most, most))


def answer(folder: bool, parts: dict[str, bytes]) -> tuple[dict[str, Any], list[Any]]:
    """(the head of the answer, the arrays behind it)."""
    from softprompt.errors import FileRefused
    from softprompt.formats.readers.detect import found_in_file, found_in_folder

    try:
        return packed(found_in_folder(parts) if folder else found_in_file(parts[""]))
    except FileRefused as error:
        return {"refused": str(error)}, []
    except MemoryError:
        return {"refused": f"reading it would take more than {MEMORY:,} bytes of memory"}, []
    except Exception as error:  # whatever it is, who sent the file is told and nobody's program ends
        return {"refused": f"its reader failed ({type(error).__name__}); please report this file"}, []


def packed(found: ParsedFile) -> tuple[dict[str, Any], list[Any]]:
    import numpy as np

    beside = [array for tensors in found.beside.values() for array in tensors.values()]
    numbers = [np.ascontiguousarray(array, "<f4") for array in (*found.vectors.values(), *beside)]
    head = {
        "format": found.format,
        "said": found.said,
        "provenance": found.provenance,
        "named": found.named,
        "vectors": _shapes(found.vectors),
        "beside": {key: _shapes(tensors) for key, tensors in found.beside.items()},
    }
    return head, numbers


def _shapes(arrays: dict[str, Array]) -> list[list[Any]]:
    return [[key, list(array.shape)] for key, array in arrays.items()]


def lock_up() -> None:
    """Gives up what reading does not need; what it does need is imported first."""
    limit(resource.RLIMIT_AS, MEMORY)
    limit(resource.RLIMIT_CPU, SECONDS)
    limit(resource.RLIMIT_FSIZE, 0)
    limit(resource.RLIMIT_CORE, 0)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # a buffer for each of many cores would not fit into the memory
    for module in READERS_IMPORT:  # nothing can be imported once no file can be opened
        importlib.import_module(module)
    limit(resource.RLIMIT_NPROC, 0)
    limit(resource.RLIMIT_NOFILE, 3)  # stdin, stdout and stderr are there already


def reply(folder: bool, parts: dict[str, bytes]) -> list[bytes | memoryview]:
    """The answer as it goes through the pipe, in pieces: its numbers are not copied once more."""
    head, arrays = answer(folder, parts)
    raw = json.dumps(head, ensure_ascii=True, allow_nan=False).encode()
    return [struct.pack("<Q", len(raw)), raw, *(memoryview(array).cast("B") for array in arrays if array.size)]


def main() -> None:
    lock_up()
    asked = json.loads(sys.stdin.buffer.readline())
    for piece in reply(asked["folder"], {name: sys.stdin.buffer.read(size) for name, size in asked["parts"]}):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
