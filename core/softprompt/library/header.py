"""Read the header of an entry file. Needs no NumPy, which takes 0.1 s to import and is not needed for listing."""

from __future__ import annotations

import json
from typing import Any

from softprompt.errors import EntryDamaged
from softprompt.prompts.safetensors_header import (
    MAX_HEADER_BYTES,
    header_length,
    reject_constant,
    reject_duplicates,
    replace_surrogates,
    strict_json,
)

MAX_ENTRY_BYTES = 256 << 20  # of a whole file; a thousand tokens and a million steps take 20 MB


def read_provenance(start: bytes, path: str) -> dict[str, Any]:
    """Return the unverified provenance from the first bytes of a file, for listing. Raises EntryDamaged."""
    try:
        # `strict_json` also checks every number, which doubles the time; the index drops infinite numbers itself
        source = read_header(start, path)["__metadata__"]["softprompt"]
        provenance = replace_surrogates(
            json.loads(source, object_pairs_hook=reject_duplicates, parse_constant=reject_constant), source
        )
        label = provenance["trashed" if "trashed" in provenance else "name"]
        if not isinstance(label, str) or not label:
            raise TypeError("its provenance has no name")
        return dict(provenance)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise EntryDamaged(f"{path} is not a valid library entry ({type(error).__name__}: {error})") from error


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


def digest_offset(raw: bytes) -> int:
    """Return the offset of the digest's 64 characters, or -1."""
    marker = b'"sha256":"'
    start = raw.find(marker, 8, 8 + max(0, header_length(raw)))
    return start + len(marker) if start >= 0 and start + len(marker) + 64 <= len(raw) else -1
