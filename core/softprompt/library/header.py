"""An entry's header: read by hand, bounded, and without numpy, which takes .1 s to import.

Format: safetensors (huggingface/safetensors). Its own reader takes the last of duplicate keys; here they are an error.
"""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

from softprompt.errors import EntryDamaged

MAX_HEADER_BYTES = 16 << 20  # bytes
_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # of a surrogate pair, or a whole one
MAX_ENTRY_BYTES = 256 << 20  # bytes of a file; an entry of a thousand tokens and a million steps has 20 MB


def provenance_of(start: bytes, path: str) -> dict[str, Any]:
    """The provenance in the first bytes of a file, unchecked: for listing. Raises EntryDamaged where there is none."""
    try:
        # without the look at every number, which takes as long as all the rest: what lists it passes over those that are infinite
        source = read_header(start, path)["__metadata__"]["softprompt"]
        provenance = without_halves(
            json.loads(source, object_pairs_hook=_no_duplicates, parse_constant=_no_constant), source
        )
        said = provenance["trashed" if "trashed" in provenance else "name"]
        if not isinstance(said, str) or not said:
            raise TypeError("a provenance without a name")
        return dict(provenance)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise EntryDamaged(f"{path} is no entry of this library: {type(error).__name__} {error}") from error


def without_halves(value: Any, source: str) -> Any:
    """Return the value of the JSON text `source` with U+FFFD for each half of a surrogate pair.

    Version 0.1 saved such halves, which stand for bytes that are no UTF-8. Nothing can print or encode them.
    """
    if not _HALF.search(source):
        return value
    return json.loads(
        json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    )


def header_length(raw: bytes) -> int:
    return int(struct.unpack("<Q", raw[:8])[0]) if len(raw) >= 8 else -1


def read_header(raw: bytes, path: str) -> dict[str, Any]:
    length = header_length(raw)
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(raw) - 8):
        raise EntryDamaged(f"{path} is damaged: it is cut short, or no safetensors file")
    try:
        header = strict_json(raw[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise EntryDamaged(f"{path} is damaged: its header is not readable ({error})") from error
    if not isinstance(header, dict):
        raise EntryDamaged(f"{path} is damaged: its header is no object")
    return header


def strict_json(text: str | bytes) -> Any:
    """JSON without duplicate keys, NaN, infinity and numbers that would be infinite; raises ValueError, TypeError, RecursionError."""
    return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("a key stands twice")
    return out


def digest_at(raw: bytes) -> int:
    """Where the 64 characters of the digest stand, or -1."""
    mark = b'"sha256":"'
    at = raw.find(mark, 8, 8 + max(0, header_length(raw)))
    return at + len(mark) if at >= 0 and at + len(mark) + 64 <= len(raw) else -1
