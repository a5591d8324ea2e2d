"""An entry's bytes: a safetensors file whose header holds every word of provenance and a SHA-256 over the file itself.

The digest is computed with its own 64 characters as zeros. A tombstone, which says that an entry is in the trash, is such a file
without tensors.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save

from softprompt.errors import EntryDamaged, PromptError
from softprompt.library.header import digest_at, header_length, read_header, strict_json, without_halves
from softprompt.prompt import Array, SoftPrompt
from softprompt.provenance import check_time

FORMAT = 1
BLANK = "0" * 64
TENSORS = ("vectors", "target", "losses", "similarities")


@dataclass(frozen=True, eq=False)
class Entry:
    """A soft prompt as it stands in the library: `id` and `revision` name its file; `changed` is when it was last edited, or ""."""

    id: str
    revision: int
    prompt: SoftPrompt
    tags: tuple[str, ...] = ()
    note: str = ""
    changed: str = ""


@dataclass(frozen=True)
class Tombstone:
    """That the entry is in the trash since `trashed`, an ISO time."""

    id: str
    revision: int
    trashed: str


def pack(entry: Entry | Tombstone) -> bytes:
    """The entry as the bytes of its file. Raises ValueError for a figure that is not finite, PromptError for what is no text."""
    provenance: dict[str, Any] = {"format": FORMAT, "id": entry.id, "revision": entry.revision}
    tensors: dict[str, Array] = {}
    if isinstance(entry, Tombstone):
        provenance["trashed"] = entry.trashed
    else:
        tensors = {name: np.ascontiguousarray(getattr(entry.prompt, name), dtype=np.float32) for name in TENSORS}
        added = {"tags": list(entry.tags), "note": entry.note, "changed": entry.changed}
        provenance |= entry.prompt.summary() | {key: value for key, value in added.items() if value}
    source = json.dumps(provenance, ensure_ascii=True, sort_keys=True, allow_nan=False)
    if without_halves(provenance, source) is not provenance:
        _check_texts(provenance)
    raw: bytes = save(tensors, {"softprompt": source, "sha256": BLANK})
    digest = hashlib.sha256(raw).hexdigest()
    at = digest_at(raw)
    return raw[:at] + digest.encode() + raw[at + 64 :]


def _check_texts(provenance: dict[str, Any]) -> None:
    """Raise PromptError for text that is no UTF-8, naming what holds it."""
    for key, value in provenance.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise PromptError(
                f"the {key.replace('_', ' ')} of this soft prompt is no UTF-8 text: it holds half of a surrogate pair"
            ) from None


def unpack(raw: bytes, path: str) -> Entry:
    """The entry that `raw` holds; raises EntryDamaged, naming `path`, for bytes that are not as they were written."""
    entry = unpack_any(raw, path)
    if isinstance(entry, Tombstone):
        raise EntryDamaged(f"{path} holds no soft prompt: it says that one is in the trash")
    return entry


def unpack_any(raw: bytes, path: str) -> Entry | Tombstone:
    """As `unpack`, for tombstones too."""
    header, data = read_header(raw, path), raw[8 + header_length(raw) :]
    at = digest_at(raw)
    if at < 0 or hashlib.sha256(raw[:at] + BLANK.encode() + raw[at + 64 :]).hexdigest().encode() != raw[at : at + 64]:
        raise EntryDamaged(f"{path} is damaged: its bytes do not match their checksum")
    try:
        source = header["__metadata__"]["softprompt"]
        provenance = without_halves(strict_json(source), source)
        if provenance["format"] != FORMAT:
            raise EntryDamaged(f"{path} has format {provenance['format']}, this version reads {FORMAT}: update softprompt-tui")
        if "trashed" in provenance:
            if not isinstance(provenance["trashed"], str) or not provenance["trashed"]:
                raise TypeError("a tombstone without a time")
            return Tombstone(provenance["id"], provenance["revision"], provenance["trashed"])
        tensors = {name: _tensor(header[name], data) for name in TENSORS}
        _check_shapes(**tensors)
        if changed := str(provenance.get("changed", "")):
            check_time(changed)
        return Entry(
            provenance["id"],
            provenance["revision"],
            SoftPrompt.from_summary(provenance, **tensors),
            tuple(map(str, provenance.get("tags", ()))),
            str(provenance.get("note", "")),
            changed,
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise EntryDamaged(f"{path} is no entry of this library: {type(error).__name__} {error}") from error


def _check_shapes(vectors: Array, target: Array, losses: Array, similarities: Array) -> None:
    """Raises ValueError for tensors that are no soft prompt's."""
    if (vectors.ndim, target.ndim, losses.ndim, similarities.ndim) != (2, 1, 1, 1) or not vectors.size:
        raise ValueError("its tensors are not a soft prompt's")
    if not (np.isfinite(vectors).all() and np.isfinite(target).all()):
        raise ValueError("its vectors are not finite")


def _tensor(info: dict[str, Any], data: bytes) -> Array:
    begin, end = info["data_offsets"]
    if info["dtype"] != "F32" or not 0 <= begin <= end <= len(data):
        raise ValueError("a tensor out of bounds")
    array: Array = np.frombuffer(data[begin:end], dtype="<f4").reshape(info["shape"])
    return array
