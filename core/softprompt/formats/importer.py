"""Soft prompts of other programs in the library: from what a file holds to entries, many files as one batch.

What a file does not say stays unknown: the hard prompt, mostly the model, what it is like. What it does say is kept in `source`. Ids are made
of the file's content, so that the same file is never added twice, whatever it is called and however often a batch is broken off.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from softprompt.config import Long, TrainConfig
from softprompt.errors import BadName, ConfigError, FileRefused, LibraryError, check_text, no_prompt, shortened
from softprompt.formats.readers.layouts import LEFT_OUT
from softprompt.formats.readers.parsed_file import ParsedFile
from softprompt.formats.readers.sandbox import read
from softprompt.library.bulk import LibrarySnapshot
from softprompt.library.entry import Entry
from softprompt.library.names import check_name, check_note, check_tags, tidied
from softprompt.prompts.lineage import check_meanings
from softprompt.prompts.serialization import from_dict, to_dict
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.validation import bounded, check_source_size
from softprompt.text_states import ENCODERS

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library import Library
    from softprompt.prompts.soft_prompt import Array

AT_ONCE = min(4, os.cpu_count() or 1)  # files read at once, a child process each
MAX_PENDING_BYTES = 64 << 20  # numbers in the files of one batch, which are all read before any is saved: 256 MB
MINI_WIDTH = 256
_NOT_KEPT_TWICE = (
    "file",
    "format",
    "sha256",
    "part",
    "with",
)  # a file's own words for what is written beside them here


@dataclass(frozen=True, eq=False)
class Imported:
    """One soft prompt of a file: `state` is added, present (the library had it already) or trashed (it is in the trash, and stays there)."""

    path: str
    format: str
    entry: Entry
    state: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ImportReport:
    """What an import did: the files refused, and what became of the others."""

    refused: list[FileRefused] = field(default_factory=list)
    imported: list[Imported] = field(default_factory=list)


def import_files(
    library: Library,
    paths: Sequence[Path | str],
    encoder: TextEncoder | None = None,
    *,
    name: str = "",
    tags: str | Collection[str] = (),
    keep_going: bool = False,
) -> ImportReport:
    """Reads and checks all files, then saves what is in them; where one is refused nothing is saved, unless `keep_going`.

    `encoder` is the model that they belong to: their widths must be its, and a readout is made. `name` is for all that are saved, numbered where
    it is taken. Raises BadName, HomeError, LibraryError.
    """
    name, tags = check_name(name) if name else "", check_tags(tags)
    batch = ImportReport()
    made: list[tuple[str, ParsedFile, Entry, tuple[str, ...]]] = []
    reads = _read_all(paths)
    known = library.known()  # after the reading, which takes seconds
    for path, found in zip(paths, reads, strict=True):
        try:
            if isinstance(found, FileRefused):
                raise found
            made += [(str(path), found, *one) for one in _entries(known, Path(path), found, encoder, name, tags)]
        except FileRefused as error:
            batch.refused.append(error)
    if batch.refused and not keep_going:
        return batch
    failed: dict[str, LibraryError] = {}
    saved = library.save_all([entry for _, _, entry, _ in made], known, failed if keep_going else None)
    seen: set[str] = set()
    for path_, found, wished, notes in made:
        if wished.id in failed:
            batch.refused.append(FileRefused(f"{path_} is not saved: {failed[wished.id]}"))
            continue
        entry, (there, was) = saved[wished.id], known.get(wished.id)
        state = (
            "present"
            if entry.id in seen
            else "trashed"
            if was == "trashed"
            else "present"
            if was == "saved"
            else "added"
        )
        if state == "added" and was == "damaged":
            whole = f"its revision {there.revision}" if there else "the file"
            notes = (*notes, f"what the library had of it was damaged, and is whole again, as in {whole}")
        if state == "added" and entry.prompt.name != wished.prompt.name and not (was and there):
            notes = (*notes, f"the name {wished.prompt.name} was taken: saved as {entry.prompt.name}")
        seen.add(entry.id)
        batch.imported.append(Imported(path_, found.format, entry, state, notes))
    return batch


def _read_all(paths: Sequence[Path | str]) -> list[ParsedFile | FileRefused]:
    """What each file holds, or why it is not read: a few are read at once, and all together hold no more than MOST_HELD numbers."""
    out: list[ParsedFile | FileRefused] = []
    held = 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        waiting = deque(pool.submit(_tried, path) for path in paths[:AT_ONCE])
        for i, path in enumerate(paths):
            found = waiting.popleft().result()
            if isinstance(found, ParsedFile):
                beside = (array for tensors in found.beside.values() for array in tensors.values())
                size = sum(array.size for array in (*found.vectors.values(), *beside))
                if held + size > MAX_PENDING_BYTES:
                    found = FileRefused(
                        f"{path} is not read: with it, this import would hold more than {MAX_PENDING_BYTES:,} numbers ({4 * MAX_PENDING_BYTES >> 20} MB) "
                        "in memory: import fewer at a time"
                    )
                else:
                    held += size
            out.append(found)
            if i + AT_ONCE < len(paths):  # not before: what is read and not counted yet is held as well
                waiting.append(pool.submit(_tried, paths[i + AT_ONCE]))
    return out


def check_assignable(prompt: SoftPrompt, *, model: bool = True, hard_prompt: bool = False, again: bool = False) -> None:
    """Raises ConfigError where the model or the hard prompt is known already; with `again`, only where it was trained with them here."""
    trained = not prompt.source or prompt.steps > 0
    known = []  # what is assigned, what is known of it, and what to do where it was trained with that
    if model and prompt.model_fingerprint:
        fact = f"{prompt.name} belongs to {prompt.model} ({prompt.model_fingerprint})"
        known.append(("a model", fact, "which it was trained on: `port` trains it for another model"))
    if hard_prompt and prompt.hard_prompt:
        fact = f"the hard prompt of {prompt.name} is {shortened(prompt.hard_prompt)!r}"
        known.append(("a hard prompt", fact, "which it was trained for: `train` trains a soft prompt for another"))
    for what, fact, advice in known:
        if trained:
            raise ConfigError(f"{fact}, {advice}")
        if not again:
            raise ConfigError(
                f"{fact}: {what} is assigned where it is unknown. If that one was a mistake, --again gives it another"
            )


def assigned(
    prompt: SoftPrompt,
    encoder: TextEncoder | None = None,
    *,
    hard_prompt: str = "",
    long: Long = TrainConfig.long,
    again: bool = False,
) -> SoftPrompt:
    """Return the soft prompt as one of this model with its readout, or with the hard prompt that it stands for, or both.

    Its similarity to the hard prompt is measured where both are known.

    Args:
        long: what is done with a hard prompt longer than a model's context, now and when it is trained for another model.

    Raises:
        ConfigError: as `check_assignable`, and for a model of another width.
        PromptError: the hard prompt cannot be one, or is too long for the model.
    """
    is_restated = bool(hard_prompt and encoder and encoder.fingerprint == prompt.model_fingerprint)
    check_assignable(prompt, model=encoder is not None and not is_restated, hard_prompt=bool(hard_prompt), again=again)
    if hard_prompt:
        check_hard_prompt(hard_prompt)
        prompt = replace(
            prompt, hard_prompt=hard_prompt, config=prompt.config | {"long": long}, target=np.empty(0, np.float32), similarity=None,
            composition=None, hidden={}, readout_similarity=None,
        )  # fmt: skip
    if encoder is None:
        return prompt
    check_width(prompt.name or "the soft prompt", prompt.vectors, encoder)
    return _with_figures(replace(prompt, model=encoder.name, model_fingerprint=encoder.fingerprint), encoder)


def check_hard_prompt(text: str) -> None:
    """Raises PromptError for a text that no soft prompt can stand for."""
    if not text.strip():
        raise no_prompt()
    check_meanings(check_text("prompt", text), ())


def _with_figures(prompt: SoftPrompt, encoder: TextEncoder) -> SoftPrompt:
    """The soft prompt with its readout on this encoder, and how near it comes to its hard prompt where that is known."""
    from softprompt.evaluation.readout import read_out
    from softprompt.objectives.hard_prompt import tokenize_target
    from softprompt.training.trainer import measured

    if not prompt.reference_texts or prompt.tokens > encoder.max_prompt_tokens:
        readout, text = read_out(encoder, prompt.vectors)
        return replace(prompt, readout=readout, readout_text=text)
    target = tokenize_target(encoder, prompt.hard_prompt, prompt.meanings, prompt.config.get("long", TrainConfig.long))
    return replace(prompt, **measured(encoder, target, prompt.vectors))


def check_width(what: str, vectors: Array, encoder: TextEncoder) -> None:
    """Raises ConfigError where the model takes vectors of another width."""
    width = vectors.shape[1]
    if width != encoder.width:
        usual = f"; {ENCODERS[width].model} is of that width" if width in ENCODERS else ""
        raise ConfigError(
            f"the vectors of {what} are {width} wide, and {encoder.name} takes {encoder.width}: they belong to another model{usual}"
        )


def candidates(width: int) -> list[str]:
    """Names of models that a soft prompt of this width may belong to: the usual one first, then those on disk.

    All that open_clip has only where its list has been read before (`softprompt.list_models`): to read it takes 5-15 s and 900 MB.
    """
    from softprompt.encoders.catalog import MINI, is_kept, list_models

    usual = ENCODERS[width].model if width in ENCODERS else ""
    if not is_kept():
        return [usual] if usual else [MINI] if width == MINI_WIDTH else []
    fitting = [info for info in list_models() if info.width == width and not info.refused]
    return [info.name for info in sorted(fitting, key=lambda info: (info.name != usual, info.on_disk is None))]


def _tried(path: Path | str) -> ParsedFile | FileRefused:
    try:
        return read(path)
    except FileRefused as error:
        return error


def _entries(
    known: LibrarySnapshot, path: Path, found: ParsedFile, encoder: TextEncoder | None, name: str, tags: Collection[str]
) -> list[tuple[Entry, tuple[str, ...]]]:
    """The entries that a file makes, with what is to be said of each. Raises FileRefused."""
    try:
        if not found.provenance:
            return _foreign(path, found, encoder, name, tags)
        if encoder and len(found.vectors) > 1:
            check_some_width(path, found, encoder)
        return [_own(known, path, found, key, encoder, name, tags) for key in found.vectors]
    except (ConfigError, BadName) as error:
        raise FileRefused(f"{path} is refused: {error}") from error


def _own(
    known: LibrarySnapshot,
    path: Path,
    found: ParsedFile,
    key: str,
    encoder: TextEncoder | None,
    name: str,
    tags: Collection[str],
) -> tuple[Entry, tuple[str, ...]]:
    """What this program wrote comes back with all that it knew; each half of a pair with the other's id as well."""
    said = dict(found.provenance[key])
    kept = said.pop("entry", {})
    vectors = found.vectors[key]
    try:
        prompt = from_dict(said, vectors, **found.beside[key])
        check_source_size(prompt.source)
        json.dumps(
            to_dict(prompt), allow_nan=False
        )  # as it is saved: nothing may be infinite in what is not looked at here, either
        entry = Entry(
            _id(found, key), 1, prompt, tuple(map(str, kept.get("tags", ()))), check_note(str(kept.get("note", "")))
        )
        entry_id = str(kept.get("id", ""))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise FileRefused(f"{path} is refused: its provenance is damaged ({type(error).__name__} {error})") from error
    notes: tuple[str, ...] = ()
    if encoder and len(found.vectors) > 1 and vectors.shape[1] != encoder.width:
        notes = (*notes, _other_width(key, vectors, encoder))
    elif encoder and prompt.model_fingerprint:
        encoder.check_belongs(prompt)
    elif encoder:
        prompt = assigned(prompt, encoder)
    own = name or tidied(prompt.name) or tidied(path.stem) or "imported"
    wished = tidied(f"{own[:40]} {key}") if key and (name or not tidied(prompt.name)) else own
    if not name and prompt.name and wished != prompt.name:
        notes = (*notes, f"the file calls it {prompt.name[:60]!r}, which is no name here: {wished}")
    if key:
        others = [_id(found, other) for other in found.vectors if other != key]
        of_pair = {"part": key, "with": ", ".join(others)}
        prompt = replace(prompt, source=bounded(of_pair | prompt.source | of_pair))
    entry = replace(entry, prompt=prompt.named(wished), tags=check_tags([*entry.tags, *tags]))
    if entry_id and _is_here(known, entry_id, vectors):
        entry = replace(entry, id=entry_id)
    return entry, notes


def _is_here(known: LibrarySnapshot, entry_id: str, vectors: Array) -> bool:
    """Whether the library has this very soft prompt under its own id; a file can bear any id."""
    there, _ = known.get(entry_id)
    return there is not None and np.array_equal(there.prompt.vectors, vectors)


def _foreign(
    path: Path, found: ParsedFile, encoder: TextEncoder | None, name: str, tags: Collection[str]
) -> list[tuple[Entry, tuple[str, ...]]]:
    ids = {part: _id(found, part) for part in found.vectors}
    if encoder:
        check_some_width(path, found, encoder)
    out = []
    for part, vectors in found.vectors.items():
        wished, notes = _name(path, found, part, name)
        if left := found.said.get(LEFT_OUT):
            notes = (*notes, f"left out of it: {left}")
        kept = {key: value for key, value in found.said.items() if key not in _NOT_KEPT_TWICE}
        own: dict[str, Any] = {
            "file": os.fsencode(path.name).decode("utf-8", "replace"),
            "format": found.format,
            "sha256": found.sha256,
        }
        if part:
            own["part"] = part
        if len(ids) > 1:
            others = [other for key, other in ids.items() if key != part]
            own["with"] = ", ".join(others[:20])
        source = bounded(own | kept)
        if missing := len(own) + len(kept) - len(source):
            notes = (
                *notes,
                f"the file says more of itself than is kept: {missing} of its {len(kept)} values are left out",
            )
        prompt = _unknown(vectors, wished, source)
        if encoder and vectors.shape[1] == encoder.width:
            prompt = assigned(prompt, encoder)
        elif encoder:
            notes = (*notes, _other_width(part, vectors, encoder))
        out.append((Entry(ids[part], 1, prompt, check_tags(tags)), notes))
    return out


def check_some_width(path: Path, found: ParsedFile, encoder: TextEncoder) -> None:
    """Raises ConfigError where the model takes vectors of another width than all in the file."""
    if not any(vectors.shape[1] == encoder.width for vectors in found.vectors.values()):
        check_width(str(path), next(iter(found.vectors.values())), encoder)


def _other_width(part: str, vectors: Array, encoder: TextEncoder) -> str:
    return (
        f"{part} is {vectors.shape[1]} wide and {encoder.name} takes {encoder.width}: it is not assigned to that model"
    )


def _id(found: ParsedFile, part: str) -> str:
    return hashlib.sha256(f"{found.sha256} {part}".encode()).hexdigest()[:16]


def _name(path: Path, found: ParsedFile, part: str, name: str) -> tuple[str, tuple[str, ...]]:
    """A name as near as can be to what the file calls it, else what the file is called; and a note where that had to be changed."""
    said = found.said.get("name")
    alone = len(found.vectors) == 1
    own, suffix = name or (said if isinstance(said, str) else ""), "" if alone else part
    if found.named and not name and not (alone and own):
        own, suffix = part, ""
    stem = tidied(own) or tidied(path.stem) or tidied(path.name) or "imported"
    wished = (tidied(f"{stem[:40]} {suffix}") or stem) if suffix else stem
    changed = own and not name and stem != own
    return wished, ((f"the file calls it {own[:60]!r}, which is no name here: {wished}",) if changed else ())


def _unknown(vectors: Array, name: str, source: dict[str, Any]) -> SoftPrompt:
    """Vectors of which nothing is known but what a file said."""
    nothing = np.empty(0, np.float32)
    return SoftPrompt(
        hard_prompt="", model="", model_fingerprint="", vectors=vectors, target=nothing, losses=nothing, similarities=nothing,
        similarity=None, composition=None, loss=None, steps=0, seconds=0.0, stopped="", readout=(), readout_text="",
        readout_similarity=None, config={}, name=name, source=source,
    )  # fmt: skip
