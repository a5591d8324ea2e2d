"""The file of a soft prompt: safetensors, with the vectors as its only tensor and everything else in the metadata.

Other programs can load it: a second tensor would break A1111 and diffusers, so the other tensors are base64 in the
metadata. A checksum over the vectors and the metadata detects damage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save

from softprompt.errors import FileRefused, PromptError
from softprompt.prompts.safetensors_file import is_safetensors, read_tensors
from softprompt.prompts.safetensors_header import replace_surrogates, strict_json
from softprompt.prompts.tensors import check_finite, read_vectors
from softprompt.prompts.values import Array

SUFFIX = ".safetensors"
EXTRA_TENSORS = ("target", "losses", "similarities")
# the keys of the metadata: the provenance, the other tensors, and the checksum, which version 0.1 does not write
PROVENANCE_KEY, TENSORS_KEY, CHECKSUM_KEY = "softprompt", "softprompt_tensors", "softprompt_sha256"


def encode(
    vectors: Mapping[str, Array], provenance: object, extra: object, metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of a file.

    Args:
        vectors: the vectors by key; two in an SDXL pair.
        provenance, extra: the provenance and the packed tensors; for a pair, those of each half by its key.
        metadata: further metadata for other programs.

    Raises:
        TypeError, ValueError: JSON cannot represent one of the values.
        PromptError: a string is not valid UTF-8.
    """
    tensors = {key: _as_float32(array) for key, array in vectors.items()}
    texts = to_json(provenance), to_json(extra)
    own = {PROVENANCE_KEY: texts[0], TENSORS_KEY: texts[1], CHECKSUM_KEY: _checksum(list(tensors.values()), *texts)}
    raw: bytes = save(tensors, {"format": "pt", **own, **(metadata or {})})
    return raw


def decode(raw: bytes) -> tuple[dict[str, Any], Array, dict[str, Array]]:
    """Return the provenance, the vectors and the other tensors of a file with one soft prompt. Raises FileRefused."""
    if not is_safetensors(raw):
        raise FileRefused("it is not a safetensors file")
    tensors, metadata, data = read_tensors(raw)
    if PROVENANCE_KEY not in metadata or TENSORS_KEY not in metadata:
        raise FileRefused("another program wrote it")
    if len(tensors) != 1:
        raise FileRefused(f"it has {len(tensors)} tensors instead of one")
    (tensor,) = tensors.values()
    vectors = read_vectors(tensor, data, {})
    texts = metadata[PROVENANCE_KEY], metadata[TENSORS_KEY]
    if metadata.get(CHECKSUM_KEY, "") not in ("", _checksum([vectors], *texts)):
        raise FileRefused("it is damaged: its contents do not match their checksum")
    try:
        provenance = replace_surrogates(strict_json(texts[0]), texts[0])
        if not isinstance(provenance, dict):
            raise TypeError("not an object")
        return provenance, vectors, unpack_tensors(strict_json(texts[1]))
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileRefused(f"it is damaged: {type(error).__name__}: {str(error)[:80]}") from error


def pack_tensors(tensors: Mapping[str, Array]) -> dict[str, str]:
    """Return the tensors other than the vectors as base64."""
    return {name: base64.b64encode(_as_float32(tensors[name]).tobytes()).decode() for name in EXTRA_TENSORS}


def unpack_tensors(packed: Any) -> dict[str, Array]:
    """Return the tensors of `pack_tensors`. A missing tensor is empty.

    Raises TypeError, ValueError or FileRefused for invalid values.
    """
    if not isinstance(packed, dict):
        raise TypeError("not an object")
    tensors = {
        name: np.frombuffer(base64.b64decode(packed.get(name, ""), validate=True), "<f4") for name in EXTRA_TENSORS
    }
    check_finite(tensors["target"])
    return tensors


def to_json(values: object, *, sort_keys: bool = False) -> str:
    """Return values as strict ASCII JSON.

    Raises:
        TypeError, ValueError: JSON cannot represent one of the values.
        PromptError: a string is not valid UTF-8.
    """
    try:
        text = json.dumps(values, ensure_ascii=True, sort_keys=sort_keys, allow_nan=False)
    except (TypeError, ValueError):
        _check_json("", values)  # names the value in the error
        raise
    if replace_surrogates(values, text) is not values:
        _check_texts(values)
    return text


def _check_texts(values: object) -> None:
    """Raise PromptError, naming the field, if a string is not valid UTF-8."""
    for key, value in values.items() if isinstance(values, dict) else [("text", values)]:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise PromptError(
                f"the {key.replace('_', ' ')} of this soft prompt is not valid UTF-8: "
                "it contains half of a surrogate pair"
            ) from None


def _check_json(name: str, value: object) -> None:
    """Raise TypeError or ValueError, naming the value, if JSON cannot represent it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{name or 'provenance'} has the key {key!r:.40}; expected a string")
            _check_json(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_json(f"{name}[{number}]", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which is not finite")
    elif not isinstance(value, str | int | float | None):
        raise TypeError(f"{name} is {value!r:.40}; expected a string, number, boolean or null")


def _checksum(vectors: list[Array], *texts: str) -> str:
    digest = hashlib.sha256()
    for part in (*(array.tobytes() for array in vectors), *(text.encode() for text in texts)):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.hexdigest()


def _as_float32(array: Array) -> Array:
    plain: Array = np.ascontiguousarray(array, dtype="<f4")
    return plain
