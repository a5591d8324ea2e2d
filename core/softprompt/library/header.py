"""Read the header of an entry file, up to a size limit and without NumPy, which takes 0.1 s to import.

The format is safetensors (huggingface/safetensors). Unlike the safetensors library, this reader rejects duplicate keys.
"""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

from softprompt.errors import EntryDamaged

MAX_HEADER_BYTES = 16 << 20
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # escaped or not, paired or not
MAX_ENTRY_BYTES = 256 << 20  # of a whole file; a thousand tokens and a million steps take 20 MB


def read_provenance(start: bytes, path: str) -> dict[str, Any]:
    """Return the unverified provenance from the first bytes of a file, for listing. Raises EntryDamaged."""
    try:
        # `strict_json` also checks every number, which doubles the time; the index drops infinite numbers itself
        source = read_header(start, path)["__metadata__"]["softprompt"]
        provenance = replace_surrogates(
            json.loads(source, object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant), source
        )
        label = provenance["trashed" if "trashed" in provenance else "name"]
        if not isinstance(label, str) or not label:
            raise TypeError("its provenance has no name")
        return dict(provenance)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise EntryDamaged(f"{path} is not a valid library entry ({type(error).__name__}: {error})") from error


def replace_surrogates(value: Any, source: str) -> Any:
    """Return `value`, parsed from the JSON text `source`, with U+FFFD in place of every unpaired surrogate.

    Version 0.1 saved unpaired surrogates for bytes that are not UTF-8. They cannot be printed or encoded.
    """
    if not _SURROGATE.search(source):
        return value
    return json.loads(
        json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    )


def header_length(raw: bytes) -> int:
    return int(struct.unpack("<Q", raw[:8])[0]) if len(raw) >= 8 else -1


def read_header(raw: bytes, path: str) -> dict[str, Any]:
    length = header_length(raw)
    if not 2 <= length <= min(MAX_HEADER_BYTES, len(raw) - 8):
        raise EntryDamaged(f"{path} is damaged: it is truncated or not a safetensors file")
    try:
        header = strict_json(raw[8 : 8 + length])
    except (ValueError, RecursionError) as error:
        raise EntryDamaged(f"{path} is damaged: its header cannot be read ({error})") from error
    if not isinstance(header, dict):
        raise EntryDamaged(f"{path} is damaged: its header is not a JSON object")
    return header


def strict_json(text: str | bytes) -> Any:
    """Parse JSON without duplicate keys and infinite numbers. Raises ValueError, TypeError or RecursionError."""
    return json.loads(
        text, object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant, parse_float=_parse_finite
    )


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice")
    return values


def digest_offset(raw: bytes) -> int:
    """Return the offset of the digest's 64 characters, or -1."""
    marker = b'"sha256":"'
    start = raw.find(marker, 8, 8 + max(0, header_length(raw)))
    return start + len(marker) if start >= 0 and start + len(marker) + 64 <= len(raw) else -1
