"""Parse an untrusted file in a child process with tight limits. It cannot open files or start processes.

stdin: a line of JSON, {"folder": bool, "parts": [[name, size], …]}, then the bytes of all parts.
stdout: the head's length in 8 bytes, the head as JSON, then float32 numbers. `sandbox` is the other end.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from typing import TYPE_CHECKING, Any

from softprompt.system.child_process import give_up_rights

if TYPE_CHECKING:
    from softprompt.formats.readers.parsed_file import ParsedFile
    from softprompt.prompts.soft_prompt import Array

MAX_MEMORY_BYTES, MAX_CPU_SECONDS = 1 << 30, 7  # address space, CPU time
# Everything that Python would import while reading a file: the reader, the decompression modules, and the codecs for
# names in a ZIP file, strings in a pickle and the encodings that `json.loads` detects.
PRELOADED_MODULES = (
    "softprompt.formats.readers.detect", "lzma", "bz2", "zlib", *(f"encodings.{codec}" for codec in (
        "ascii", "latin_1", "cp437", "raw_unicode_escape", "unicode_escape",
        "utf_8", "utf_8_sig", "utf_16", "utf_16_le", "utf_16_be", "utf_32", "utf_32_le", "utf_32_be",
    )),
)  # fmt: skip


def answer(is_folder: bool, parts: dict[str, bytes]) -> tuple[dict[str, Any], list[Any]]:
    """Return the head of the answer and the arrays that follow it."""
    from softprompt.errors import FileRefused
    from softprompt.formats.readers.detect import parse_file, parse_folder

    try:
        return serialize(parse_folder(parts) if is_folder else parse_file(parts[""]))
    except FileRefused as error:
        return {"refused": str(error)}, []
    except MemoryError:
        return {"refused": f"reading it would take more than {MAX_MEMORY_BYTES:,} bytes of memory"}, []
    except Exception as error:  # report any failure to the user instead of crashing
        return {"refused": f"its reader failed ({type(error).__name__}). Please report this file"}, []


def serialize(file: ParsedFile) -> tuple[dict[str, Any], list[Any]]:
    import numpy as np

    extra = [array for tensors in file.extra_tensors.values() for array in tensors.values()]
    numbers = [np.ascontiguousarray(array, "<f4") for array in (*file.vectors.values(), *extra)]
    head = {
        "format": file.format,
        "said": file.metadata,
        "provenance": file.provenance,
        "named": file.keys_are_names,
        "vectors": _shapes(file.vectors),
        "beside": {key: _shapes(tensors) for key, tensors in file.extra_tensors.items()},
    }
    return head, numbers


def _shapes(arrays: dict[str, Array]) -> list[list[Any]]:
    return [[key, list(array.shape)] for key, array in arrays.items()]


def lock_down() -> None:
    """Import everything that parsing needs, then give up the right to open files and start processes."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # one buffer per core could exceed the memory limit
    give_up_rights(PRELOADED_MODULES, MAX_MEMORY_BYTES, MAX_CPU_SECONDS)


def reply(is_folder: bool, parts: dict[str, bytes]) -> list[bytes | memoryview]:
    """Return the answer as pieces to write one by one, which avoids another copy of the numbers."""
    head, arrays = answer(is_folder, parts)
    raw = json.dumps(head, ensure_ascii=True, allow_nan=False).encode()
    return [struct.pack("<Q", len(raw)), raw, *(memoryview(array).cast("B") for array in arrays if array.size)]


def main() -> None:
    lock_down()
    request = json.loads(sys.stdin.buffer.readline())
    for piece in reply(request["folder"], {name: sys.stdin.buffer.read(size) for name, size in request["parts"]}):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
