"""An entry's bytes: a safetensors file whose header holds every word of provenance and a SHA-256 over the file itself.

The digest is computed with its own 64 characters as zeros. A tombstone, which says that an entry is in the trash, is such a file
without tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from safetensors.numpy import save

from softprompt.errors import EntryDamaged, EntryRefused, PromptError
from softprompt.library.header import (
    MAX_ENTRY_BYTES,
    digest_at,
    header_length,
    read_header,
    strict_json,
    without_halves,
)
from softprompt.prompts.serialization import from_dict, to_dict
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.prompts.validation import check_time

FORMAT = 1
BLANK = "0" * 64
TENSORS = ("vectors", "target", "losses", "similarities")


# what bytes and values of another shape raise
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


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
    """The entry as the bytes of its file.

    Raises TypeError or ValueError for values that such a file cannot hold, PromptError for text that is no UTF-8.
    """
    provenance: dict[str, Any] = {"format": FORMAT, "id": entry.id, "revision": entry.revision}
    tensors: dict[str, Array] = {}
    if isinstance(entry, Tombstone):
        provenance["trashed"] = entry.trashed
    else:
        tensors = {name: _as_float32(name, getattr(entry.prompt, name)) for name in TENSORS}
        added = {"tags": list(entry.tags), "note": entry.note, "changed": entry.changed}
        provenance |= to_dict(entry.prompt) | {key: value for key, value in added.items() if value}
    try:
        text = json.dumps(provenance, ensure_ascii=True, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError):
        _check_plain("", provenance)  # says which value it is
        raise
    if without_halves(provenance, text) is not provenance:
        _check_texts(provenance)
    raw: bytes = save(tensors, {"softprompt": text, "sha256": BLANK})
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


def _check_plain(name: str, value: Any) -> None:
    """Raise TypeError or ValueError, naming the value, for one that JSON cannot hold."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{name or 'provenance'} has the key {key!r:.40}; a text is expected")
            _check_plain(f"{name}.{key}" if name else key, inner)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_plain(f"{name}[{number}]", inner)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value}, which is not finite")
    elif not isinstance(value, str | int | float | None):
        raise TypeError(f"{name} is {value!r:.40}; a text, a number, yes, no or nothing is expected")


def pack_openable(entry: Entry | Tombstone) -> bytes:
    """As `pack`, but read the bytes again as opening does. Raises EntryRefused for what could not be opened."""
    try:
        if isinstance(entry, Entry) and not entry.prompt.name:
            raise ValueError("name is empty")
        raw = pack(entry)
        _read(raw)
    except (*_WRONG, EntryDamaged) as error:
        raise EntryRefused(
            f"it cannot be saved, because it could not be opened again: {error}. Nothing was written"
        ) from error
    return raw


def unpack(raw: bytes, path: str) -> Entry:
    """The entry that `raw` holds; raises EntryDamaged, naming `path`, for bytes that are not as they were written."""
    entry = unpack_any(raw, path)
    if isinstance(entry, Tombstone):
        raise EntryDamaged(f"{path} holds no soft prompt: it says that one is in the trash")
    return entry


def unpack_any(raw: bytes, path: str) -> Entry | Tombstone:
    """As `unpack`, for tombstones too."""
    try:
        return _read(raw, path)
    except _WRONG as error:
        raise EntryDamaged(f"{path} is no entry of this library: {type(error).__name__} {error}") from error


def _read(raw: bytes, path: str = "the entry") -> Entry | Tombstone:
    """Check every byte and every value of an entry. Saving and opening both come by here. Raises EntryDamaged or one of `_WRONG`."""
    if len(raw) > MAX_ENTRY_BYTES:
        raise ValueError(f"it has {len(raw):,} bytes; at most {MAX_ENTRY_BYTES:,} are read")
    header, data = read_header(raw, path), raw[8 + header_length(raw) :]
    at = digest_at(raw)
    if at < 0 or hashlib.sha256(raw[:at] + BLANK.encode() + raw[at + 64 :]).hexdigest().encode() != raw[at : at + 64]:
        raise EntryDamaged(f"{path} is damaged: its bytes do not match their checksum")
    source = header["__metadata__"]["softprompt"]
    provenance = without_halves(strict_json(source), source)
    if provenance["format"] != FORMAT:
        raise EntryDamaged(
            f"{path} has format {provenance['format']}, this version reads {FORMAT}: update softprompt-tui"
        )
    if "trashed" in provenance:
        if not isinstance(provenance["trashed"], str) or not provenance["trashed"]:
            raise TypeError("a tombstone without a time")
        return Tombstone(provenance["id"], provenance["revision"], provenance["trashed"])
    tensors = {name: _tensor(header[name], data) for name in TENSORS}
    if changed := str(provenance.get("changed", "")):
        check_time(changed)
    prompt = from_dict(provenance, **tensors)
    tags, note = tuple(map(str, provenance.get("tags", ()))), str(provenance.get("note", ""))
    return Entry(provenance["id"], provenance["revision"], prompt, tags, note, changed)


def _as_float32(name: str, values: Any) -> Array:
    """Return a tensor as it is saved. Raises TypeError, naming it, for anything but floating-point numbers."""
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} holds {array.dtype}; float32 is expected")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return np.asarray(array, dtype=np.float32, order="C")


def _tensor(info: dict[str, Any], data: bytes) -> Array:
    begin, end = info["data_offsets"]
    if info["dtype"] != "F32" or not 0 <= begin <= end <= len(data):
        raise ValueError("a tensor out of bounds")
    array: Array = np.frombuffer(data[begin:end], dtype="<f4").reshape(info["shape"])
    return array
