"""Import soft prompts from other programs' files into the library, many files at a time.

Facts missing from a file stay unknown, which usually means the hard prompt and the model. The file's metadata goes into
`source`. An entry's id is a hash of the file's content, so the same file is never added twice, even under a different
name or after an interrupted import.
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

from softprompt.config import LongPromptPolicy, TrainConfig
from softprompt.errors import (
    BadName,
    ConfigError,
    FileRefused,
    LibraryError,
    check_text,
    empty_prompt,
    option,
    shorten,
    wording,
)
from softprompt.formats.readers.layouts import LEFT_OUT
from softprompt.formats.readers.parsed_file import ParsedFile
from softprompt.formats.readers.sandbox import read_soft_prompts
from softprompt.library.bulk import LibrarySnapshot
from softprompt.library.entry import Entry
from softprompt.library.names import check_name, check_note, check_tags, clean_name
from softprompt.prompts.lineage import check_meanings
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.prompts.validation import check_source_size, truncate_source
from softprompt.text_states import KNOWN_ENCODERS

if TYPE_CHECKING:
    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library import Library
    from softprompt.prompts.soft_prompt import Array

MAX_PARALLEL_FILES = min(4, os.cpu_count() or 1)  # each in its own child process
MAX_PENDING_VALUES = 64 << 20  # float32 values (256 MB): all files are read before the first entry is saved
MINI_WIDTH = 256
_RESERVED_KEYS = ("file", "format", "sha256", "part", "with")  # the importer writes these keys of `source` itself


@dataclass(frozen=True, eq=False)
class ImportResult:
    """One soft prompt from an imported file.

    `state` is "added", "present" (already in the library) or "trashed" (in the trash, where it stays).
    """

    path: str
    format: str
    entry: Entry
    state: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class ImportReport:
    """The result of an import: the soft prompts, and the errors for rejected files."""

    refused: list[FileRefused] = field(default_factory=list)
    imported: list[ImportResult] = field(default_factory=list)


def import_files(
    library: Library,
    paths: Sequence[Path | str],
    encoder: TextEncoder | None = None,
    *,
    name: str = "",
    tags: str | Collection[str] = (),
    keep_going: bool = False,
) -> ImportReport:
    """Read and check all files, then save their soft prompts. If any file is rejected, save none unless `keep_going`.

    Args:
        encoder: the model that the files belong to. Each file needs at least one soft prompt of its width, and every
            soft prompt of that width gets a readout.
        name: the name for every saved soft prompt, with a number added if it is taken.

    Raises:
        BadName, HomeError, LibraryError.
    """
    name, tags = check_name(name) if name else "", check_tags(tags)
    report = ImportReport()
    pending: list[tuple[str, ParsedFile, Entry, tuple[str, ...]]] = []
    files = _read_all(paths)
    snapshot = library.snapshot()  # reading takes seconds, so take the snapshot afterwards
    for path, file in zip(paths, files, strict=True):
        try:
            if isinstance(file, FileRefused):
                raise file
            pending += [
                (str(path), file, *entry_and_notes)
                for entry_and_notes in _make_entries(snapshot, Path(path), file, encoder, name, tags)
            ]
        except FileRefused as error:
            report.refused.append(error)
    if report.refused and not keep_going:
        return report
    failed: dict[str, LibraryError] = {}
    saved = library.save_all([entry for _, _, entry, _ in pending], snapshot, failed if keep_going else None)
    seen: set[str] = set()
    for path_, file, requested, notes in pending:
        if requested.id in failed:
            report.refused.append(FileRefused(f"cannot save {path_}: {failed[requested.id]}"))
            continue
        entry, (previous, previous_state) = saved[requested.id], snapshot.get(requested.id)
        state = (
            "present"
            if entry.id in seen
            else "trashed"
            if previous_state == "trashed"
            else "present"
            if previous_state == "saved"
            else "added"
        )
        if state == "added" and previous_state == "damaged":
            origin = f"revision {previous.revision}" if previous else "the file"
            notes = (*notes, f"the library's copy was damaged and was restored from {origin}")
        if state == "added" and entry.prompt.name != requested.prompt.name and not (previous_state and previous):
            notes = (*notes, f"the name {requested.prompt.name} was taken, so it was saved as {entry.prompt.name}")
        seen.add(entry.id)
        report.imported.append(ImportResult(path_, file.format, entry, state, notes))
    return report


def _read_all(paths: Sequence[Path | str]) -> list[ParsedFile | FileRefused]:
    """Read files, a few in parallel. Return a ParsedFile or an error for each, in order.

    Files beyond a total of MAX_PENDING_VALUES values are rejected.
    """
    files: list[ParsedFile | FileRefused] = []
    total_values = 0
    with ThreadPoolExecutor(MAX_PARALLEL_FILES) as pool:
        futures = deque(pool.submit(_try_read, path) for path in paths[:MAX_PARALLEL_FILES])
        for i, path in enumerate(paths):
            file = futures.popleft().result()
            if isinstance(file, ParsedFile):
                extra = (array for tensors in file.extra_tensors.values() for array in tensors.values())
                size = sum(array.size for array in (*file.vectors.values(), *extra))
                if total_values + size > MAX_PENDING_VALUES:
                    file = FileRefused(
                        f"cannot read {path}: this import would hold more than {MAX_PENDING_VALUES:,} values "
                        f"({4 * MAX_PENDING_VALUES >> 20} MB) in memory. Import fewer files at a time."
                    )
                else:
                    total_values += size
            files.append(file)
            if i + MAX_PARALLEL_FILES < len(
                paths
            ):  # not earlier: files that are read but not yet counted use memory too
                futures.append(pool.submit(_try_read, paths[i + MAX_PARALLEL_FILES]))
    return files


def check_assignable(prompt: SoftPrompt, *, model: bool = True, hard_prompt: bool = False, again: bool = False) -> None:
    """Raise ConfigError if the model or hard prompt to be assigned is already known.

    With `again`, a known value may be replaced, unless this program trained the soft prompt with it.
    """
    was_trained_here = not prompt.source or prompt.steps > 0
    port, train = wording("`port`", "`softprompt.port`"), wording("`train`", "`softprompt.train`")
    known = []  # (kind of value, its current value, what to do if the soft prompt was trained with it)
    if model and prompt.model_fingerprint:
        fact = f"{prompt.name} belongs to {prompt.model} ({prompt.model_fingerprint})"
        known.append(("model", fact, f"it was trained on that model. Use {port} to train it for another model."))
    if hard_prompt and prompt.hard_prompt:
        fact = f"the hard prompt of {prompt.name} is {shorten(prompt.hard_prompt)!r}"
        known.append(("hard prompt", fact, f"it was trained for that prompt. Use {train} for another hard prompt."))
    for kind, fact, advice in known:
        if was_trained_here:
            raise ConfigError(f"{fact}; {advice}")
        if not again:
            raise ConfigError(
                f"{fact}. {wording('`assign`', '`softprompt.assign`')} only sets an unknown {kind}. "
                f"Use {option('again', True)} to replace a wrong one."
            )


def apply_assignment(
    prompt: SoftPrompt,
    encoder: TextEncoder | None = None,
    *,
    hard_prompt: str = "",
    long: LongPromptPolicy = TrainConfig.long,
    again: bool = False,
) -> SoftPrompt:
    """Return a copy of the soft prompt with the given model and a readout on it, with the given hard prompt, or both.

    If both are then known, the similarity is measured.

    Args:
        long: what to do with a hard prompt longer than the model's context, now and in later training for another
            model.

    Raises:
        ConfigError: see `check_assignable`, or the model has a different width.
        PromptError: the hard prompt is invalid or too long for the model.
    """
    is_restated = bool(hard_prompt and encoder and encoder.fingerprint == prompt.model_fingerprint)
    check_assignable(prompt, model=encoder is not None and not is_restated, hard_prompt=bool(hard_prompt), again=again)
    if hard_prompt:
        check_hard_prompt(hard_prompt)
        prompt = replace(
            prompt, hard_prompt=hard_prompt, config=prompt.config | {"long": long}, target=np.empty(0, np.float32),
            similarity=None, composition=None, hidden={}, readout_similarity=None,
        )  # fmt: skip
    if encoder is None:
        return prompt
    check_width(prompt.name or "the soft prompt", prompt.vectors, encoder)
    return _add_measurements(replace(prompt, model=encoder.name, model_fingerprint=encoder.fingerprint), encoder)


def check_hard_prompt(text: str) -> None:
    """Raise PromptError if the text cannot be a hard prompt."""
    if not text.strip():
        raise empty_prompt()
    check_meanings(check_text("prompt", text), ())


def _add_measurements(prompt: SoftPrompt, encoder: TextEncoder) -> SoftPrompt:
    """Return a copy with the readout and, if the hard prompt is known and fits, the similarities on this encoder."""
    from softprompt.evaluation.readout import read_out
    from softprompt.objectives.hard_prompt import tokenize_target
    from softprompt.training.model_kinds import measure

    if not prompt.reference_texts or prompt.tokens > encoder.max_prompt_tokens:
        readout, text = read_out(encoder, prompt.vectors)
        return replace(prompt, readout=readout, readout_text=text)
    target = tokenize_target(encoder, prompt.hard_prompt, prompt.meanings, prompt.config.get("long", TrainConfig.long))
    return replace(prompt, **measure(encoder, target, prompt.vectors))


def check_width(label: str, vectors: Array, encoder: TextEncoder) -> None:
    """Raise ConfigError if the vectors do not have the encoder's width."""
    width = vectors.shape[1]
    if width != encoder.width:
        example = f", such as {KNOWN_ENCODERS[width].model}" if width in KNOWN_ENCODERS else ""
        raise ConfigError(
            f"{label} has width {width}, but {encoder.name} has width {encoder.width}. "
            f"It belongs to a different model{example}."
        )


def find_candidate_models(width: int) -> list[str]:
    """Return the names of the text encoders with this width: the usual one first, then downloaded ones, then the rest.

    Only the usual model is listed unless open_clip's list is cached (see `softprompt.list_models`), because reading
    that list takes 5-15 s and 900 MB.
    """
    from softprompt.encoders.catalog import MINI, is_cached, list_models

    usual = KNOWN_ENCODERS[width].model if width in KNOWN_ENCODERS else ""
    if not is_cached():
        return [usual] if usual else [MINI] if width == MINI_WIDTH else []
    matching = [info for info in list_models() if info.width == width and info.kind == "text" and not info.refused]
    return [info.name for info in sorted(matching, key=lambda info: (info.name != usual, info.weights_path is None))]


def _try_read(path: Path | str) -> ParsedFile | FileRefused:
    try:
        return read_soft_prompts(path)
    except FileRefused as error:
        return error


def _make_entries(
    snapshot: LibrarySnapshot,
    path: Path,
    file: ParsedFile,
    encoder: TextEncoder | None,
    name: str,
    tags: Collection[str],
) -> list[tuple[Entry, tuple[str, ...]]]:
    """Return an entry, with notes for the user, for each soft prompt in a file. Raises FileRefused."""
    try:
        if not file.provenance:
            return _make_foreign_entries(path, file, encoder, name, tags)
        if encoder and len(file.vectors) > 1:
            check_any_has_width(path, file, encoder)
        return [_restore_entry(snapshot, path, file, key, encoder, name, tags) for key in file.vectors]
    except (ConfigError, BadName) as error:
        raise FileRefused(f"cannot import {path}: {error}") from error


def _restore_entry(
    snapshot: LibrarySnapshot,
    path: Path,
    file: ParsedFile,
    key: str,
    encoder: TextEncoder | None,
    name: str,
    tags: Collection[str],
) -> tuple[Entry, tuple[str, ...]]:
    """Return the entry for a soft prompt in a file from this program. Halves of a pair record each other's ids."""
    values = dict(file.provenance[key])
    stored = values.pop("entry", {})
    vectors = file.vectors[key]
    try:
        prompt = SoftPrompt.from_dict(values, vectors, **file.extra_tensors[key])
        check_source_size(prompt.source)
        # saving needs finite values, including in fields that nothing checks here
        json.dumps(prompt.as_dict(), allow_nan=False)
        entry = Entry(
            _make_id(file, key),
            1,
            prompt,
            tuple(map(str, stored.get("tags", ()))),
            check_note(str(stored.get("note", ""))),
        )
        entry_id = str(stored.get("id", ""))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise FileRefused(
            f"cannot import {path}: its provenance is damaged ({type(error).__name__}: {error})"
        ) from error
    notes: tuple[str, ...] = ()
    if encoder and len(file.vectors) > 1 and vectors.shape[1] != encoder.width:
        notes = (*notes, _describe_other_width(key, vectors, encoder))
    elif encoder and prompt.model_fingerprint:
        encoder.check_compatible(prompt)
    elif encoder:
        prompt = apply_assignment(prompt, encoder)
    base = name or clean_name(prompt.name) or clean_name(path.stem) or "imported"
    new_name = clean_name(f"{base[:40]} {key}") if key and (name or not clean_name(prompt.name)) else base
    if not name and prompt.name and new_name != prompt.name:
        notes = (
            *notes,
            f"the file names it {prompt.name[:60]!r}, which is not a valid name here, so it was renamed to {new_name}",
        )
    if key:
        others = [_make_id(file, other) for other in file.vectors if other != key]
        pair_source = {"part": key, "with": ", ".join(others)}
        prompt = replace(prompt, source=truncate_source(pair_source | prompt.source | pair_source))
    entry = replace(entry, prompt=prompt.named(new_name), tags=check_tags([*entry.tags, *tags]))
    if entry_id and _is_in_library(snapshot, entry_id, vectors):
        entry = replace(entry, id=entry_id)
    return entry, notes


def _is_in_library(snapshot: LibrarySnapshot, entry_id: str, vectors: Array) -> bool:
    """Return whether the library has these vectors under this id. A file can claim any id, so compare the vectors."""
    existing, _ = snapshot.get(entry_id)
    return existing is not None and np.array_equal(existing.prompt.vectors, vectors)


def _make_foreign_entries(
    path: Path, file: ParsedFile, encoder: TextEncoder | None, name: str, tags: Collection[str]
) -> list[tuple[Entry, tuple[str, ...]]]:
    ids = {part: _make_id(file, part) for part in file.vectors}
    if encoder:
        check_any_has_width(path, file, encoder)
    entries = []
    for part, vectors in file.vectors.items():
        new_name, notes = _choose_name(path, file, part, name)
        if left_out := file.metadata.get(LEFT_OUT):
            notes = (*notes, f"not imported: {left_out}")
        metadata = {key: value for key, value in file.metadata.items() if key not in _RESERVED_KEYS}
        origin: dict[str, Any] = {
            "file": os.fsencode(path.name).decode("utf-8", "replace"),
            "format": file.format,
            "sha256": file.sha256,
        }
        if part:
            origin["part"] = part
        if len(ids) > 1:
            others = [other for key, other in ids.items() if key != part]
            origin["with"] = ", ".join(others[:20])
        source = truncate_source(origin | metadata)
        if dropped := len(origin) + len(metadata) - len(source):
            notes = (*notes, f"the file has too much metadata: {dropped} of {len(metadata)} values were dropped")
        prompt = _make_prompt(vectors, new_name, source)
        if encoder and vectors.shape[1] == encoder.width:
            prompt = apply_assignment(prompt, encoder)
        elif encoder:
            notes = (*notes, _describe_other_width(part, vectors, encoder))
        entries.append((Entry(ids[part], 1, prompt, check_tags(tags)), notes))
    return entries


def check_any_has_width(path: Path, file: ParsedFile, encoder: TextEncoder) -> None:
    """Raise ConfigError if no soft prompt in the file has the encoder's width."""
    if not any(vectors.shape[1] == encoder.width for vectors in file.vectors.values()):
        check_width(str(path), next(iter(file.vectors.values())), encoder)


def _describe_other_width(part: str, vectors: Array, encoder: TextEncoder) -> str:
    return f"{part} has width {vectors.shape[1]}, but {encoder.name} has width {encoder.width}, so it was not assigned"


def _make_id(file: ParsedFile, part: str) -> str:
    return hashlib.sha256(f"{file.sha256} {part}".encode()).hexdigest()[:16]


def _choose_name(path: Path, file: ParsedFile, part: str, name: str) -> tuple[str, tuple[str, ...]]:
    """Return a valid name, based on the name in the file or else the file name, and a note if it was changed."""
    stated = file.metadata.get("name")
    is_only = len(file.vectors) == 1
    base, suffix = name or (stated if isinstance(stated, str) else ""), "" if is_only else part
    if file.keys_are_names and not name and not (is_only and base):
        base, suffix = part, ""
    stem = clean_name(base) or clean_name(path.stem) or clean_name(path.name) or "imported"
    new_name = (clean_name(f"{stem[:40]} {suffix}") or stem) if suffix else stem
    is_changed = base and not name and stem != base
    return new_name, (
        (f"the file names it {base[:60]!r}, which is not a valid name here, so it was renamed to {new_name}",)
        if is_changed
        else ()
    )


def _make_prompt(vectors: Array, name: str, source: dict[str, Any]) -> SoftPrompt:
    """Return a soft prompt of unknown origin. `source` has the file's own metadata."""
    empty = np.empty(0, np.float32)
    return SoftPrompt(
        hard_prompt="", model="", model_fingerprint="", vectors=vectors, target=empty, losses=empty, similarities=empty,
        similarity=None, composition=None, loss=None, steps=0, seconds=0.0, stopped="", readout=(), readout_text="",
        readout_similarity=None, config={}, name=name, source=source,
    )  # fmt: skip
