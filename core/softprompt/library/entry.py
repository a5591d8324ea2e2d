"""The file format of entries: safetensors, with the provenance and a SHA-256 digest of the whole file in the header.

The digest is computed with its own 64 characters set to zeros. A tombstone, a file without tensors, marks an entry that
is in the trash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from safetensors.numpy import save

from softprompt.arguments import checked_fields, convert_fields
from softprompt.errors import EntryDamaged, EntryRefused, without_stop
from softprompt.library.header import MAX_ENTRY_BYTES, digest_offset, read_header
from softprompt.prompts.html import show_block
from softprompt.prompts.prompt_file import EXTRA_TENSORS, to_json
from softprompt.prompts.safetensors_header import header_length, replace_surrogates, strict_json
from softprompt.prompts.soft_prompt import Array, SoftPrompt
from softprompt.prompts.validation import check_time
from softprompt.prompts.values import ComparedByValue
from softprompt.prompts.visible_text import short_repr

# 1: text encoders. 2: language models, which version 0.1 cannot show or use, so it asks for an update.
FORMAT, ANSWERS_FORMAT = 1, 2
BLANK = "0" * 64
TENSORS = ("vectors", *EXTRA_TENSORS)
# errors that malformed bytes and values cause during parsing
_PARSE_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError)


@checked_fields
@dataclass(frozen=True, eq=False, repr=False)
class Entry(ComparedByValue):
    """A soft prompt in the library. Two entries are equal if all their fields are equal.

    Attributes:
        id, revision: together they name the file.
        changed: ISO time of the last edit, or "" if there was none.
    """

    id: str
    revision: int
    prompt: SoftPrompt
    tags: tuple[str, ...] = ()
    note: str = ""
    changed: str = ""

    def __post_init__(self) -> None:
        convert_fields(self)

    _hashed = ("id", "revision")

    @property
    def name(self) -> str:
        """The soft prompt's name."""
        return self.prompt.name

    if not TYPE_CHECKING:  # type checkers would allow every attribute

        def __getattr__(self, name: str) -> NoReturn:
            is_public = not name.startswith("_")  # copying and pickling look for others
            if is_public and (hasattr(SoftPrompt, name) or name in (field.name for field in fields(SoftPrompt))):
                raise AttributeError(f"an Entry has no attribute {name!r}. Write entry.prompt.{name}.")
            raise AttributeError(f"an Entry has no attribute {name!r}")

    def __repr__(self) -> str:
        prompt = self.prompt
        return short_repr(
            "Entry",
            prompt.name,
            id=self.id,
            revision=self.revision,
            hard_prompt=prompt.hard_prompt,
            tokens=len(prompt),
            model=prompt.model,
            similarity=prompt.similarity,
            tags=self.tags,
        )

    def _repr_html_(self) -> str:
        block = self.prompt._describe()
        notes = [f"id {self.id}, revision {self.revision}", *filter(None, [self.note]), *block.notes]
        return show_block(replace(block, tags=self.tags, notes=notes))


@dataclass(frozen=True)
class Tombstone:
    """The marker of an entry in the trash. `trashed` is the ISO time of its deletion."""

    id: str
    revision: int
    trashed: str


def pack(entry: Entry | Tombstone) -> bytes:
    """Return the bytes of an entry's file.

    Raises:
        TypeError, ValueError: the file format cannot represent one of the values.
        PromptError: a string is not valid UTF-8.
    """
    provenance: dict[str, Any] = {"format": FORMAT, "id": entry.id, "revision": entry.revision}
    tensors: dict[str, Array] = {}
    if isinstance(entry, Tombstone):
        provenance["trashed"] = entry.trashed
    else:
        tensors = {name: np.ascontiguousarray(getattr(entry.prompt, name)) for name in TENSORS}
        added = {"tags": list(entry.tags), "note": entry.note, "changed": entry.changed}
        if entry.prompt.answers is not None or entry.prompt.examples is not None:
            provenance["format"] = ANSWERS_FORMAT
        provenance |= entry.prompt.as_dict() | {key: value for key, value in added.items() if value}
    text = to_json(provenance, sort_keys=True)
    raw: bytes = save(tensors, {"softprompt": text, "sha256": BLANK})
    digest = hashlib.sha256(raw).hexdigest()
    offset = digest_offset(raw)
    return raw[:offset] + digest.encode() + raw[offset + 64 :]


def pack_verified(entry: Entry | Tombstone) -> bytes:
    """Pack an entry and verify it by reading it back. Raises EntryRefused if the file would be unreadable."""
    try:
        if isinstance(entry, Entry) and not entry.prompt.name:
            raise ValueError("name is empty")
        raw = pack(entry)
        _read(raw)
    except (*_PARSE_ERRORS, EntryDamaged) as error:
        raise EntryRefused(
            f"it cannot be saved, because the resulting file would be unreadable: {without_stop(error)}. "
            "Nothing was written."
        ) from error
    return raw


def unpack(raw: bytes, path: str) -> Entry:
    """Return the entry in `raw`. Raises EntryDamaged, naming `path`, if the bytes are damaged or only a tombstone."""
    entry = unpack_any(raw, path)
    if isinstance(entry, Tombstone):
        raise EntryDamaged(f"{path} has no soft prompt; it only marks one that is in the trash")
    return entry


def unpack_any(raw: bytes, path: str) -> Entry | Tombstone:
    """Return the entry or tombstone in `raw`. Raises EntryDamaged."""
    try:
        return _read(raw, path)
    except _PARSE_ERRORS as error:
        raise EntryDamaged(f"{path} is not a valid library entry ({type(error).__name__}: {error})") from error


def _read(raw: bytes, path: str = "the entry") -> Entry | Tombstone:
    """Parse an entry and check every byte and value. Saving and opening both use this.

    Raises EntryDamaged or one of `_PARSE_ERRORS`.
    """
    if len(raw) > MAX_ENTRY_BYTES:
        raise ValueError(f"it has {len(raw):,} bytes; the limit is {MAX_ENTRY_BYTES:,}")
    header, data = read_header(raw, path), raw[8 + header_length(raw) :]
    offset = digest_offset(raw)
    if (
        offset < 0
        or hashlib.sha256(raw[:offset] + BLANK.encode() + raw[offset + 64 :]).hexdigest().encode()
        != raw[offset : offset + 64]
    ):
        raise EntryDamaged(f"{path} is damaged: its bytes do not match their checksum")
    source = header["__metadata__"]["softprompt"]
    provenance = replace_surrogates(strict_json(source), source)
    if provenance["format"] not in (FORMAT, ANSWERS_FORMAT):
        raise EntryDamaged(
            f"{path} has format {provenance['format']}, but this version reads up to {ANSWERS_FORMAT}. Update "
            "softprompt-tui."
        )
    if "trashed" in provenance:
        if not isinstance(provenance["trashed"], str) or not provenance["trashed"]:
            raise TypeError("its tombstone has no deletion time")
        return Tombstone(provenance["id"], provenance["revision"], provenance["trashed"])
    tensors = {name: _tensor(header[name], data) for name in TENSORS}
    if changed := str(provenance.get("changed", "")):
        check_time(changed)
    prompt = SoftPrompt.from_dict(provenance, **tensors)
    tags, note = tuple(map(str, provenance.get("tags", ()))), str(provenance.get("note", ""))
    return Entry(provenance["id"], provenance["revision"], prompt, tags, note, changed)


def _tensor(info: dict[str, Any], data: bytes) -> Array:
    begin, end = info["data_offsets"]
    if info["dtype"] != "F32" or not 0 <= begin <= end <= len(data):
        raise ValueError("one of its tensors is out of bounds")
    array: Array = np.frombuffer(data[begin:end], dtype="<f4").reshape(info["shape"])
    return array
