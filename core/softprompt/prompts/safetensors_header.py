"""Parse the header of a safetensors file strictly, up to a size limit. Needs no NumPy, which takes 0.1 s to import.

The format is safetensors (huggingface/safetensors). Unlike the safetensors library, this parser rejects duplicate keys.
"""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

MAX_HEADER_BYTES = 16 << 20
EMB_PARAMS = "emb_params"  # the key under which most programs expect a soft prompt's vectors
ROWS_KEY = "softprompt_rows"  # metadata of a PEFT folder of ours: which rows of its tensor are the soft tokens, "3:19"
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")  # escaped or not, paired or not


def header_length(raw: bytes) -> int:
    return int(struct.unpack("<Q", raw[:8])[0]) if len(raw) >= 8 else -1


def strict_json(text: str | bytes) -> Any:
    """Parse JSON without duplicate keys and infinite numbers. Raises ValueError, TypeError or RecursionError."""
    return json.loads(
        text, object_pairs_hook=reject_duplicates, parse_constant=reject_constant, parse_float=_parse_finite
    )


def reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key appears twice")
    return values


def _parse_finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def replace_surrogates(value: Any, source: str) -> Any:
    """Return `value`, parsed from the JSON text `source`, with U+FFFD in place of every unpaired surrogate.

    Version 0.1 saved unpaired surrogates for bytes that are not UTF-8. They cannot be printed or encoded.
    """
    if not _SURROGATE.search(source):
        return value
    return json.loads(
        json.dumps(value, ensure_ascii=False).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    )
