"""The output file of a batch: exactly one line of JSON per prompt, even if the process is killed and restarted.

The user chooses the path, so an unrelated file may already be there. We append to a file only if our own record proves
that we wrote it (`record`), or if every complete line is a result. In such a file, we cut off anything that a crash
left after the last complete line and replace the error lines of this batch. Any other file is rejected, not changed.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

from softprompt.batches.record import OutputRecord, WrittenFile, load_record, save_record
from softprompt.batches.results import Result, State
from softprompt.batches.spool import Spool
from softprompt.errors import FileRefused, option, wording
from softprompt.system.files import PARTIAL_SUFFIX, name_path_in_errors, sync_folder
from softprompt.system.filesystems import sync
from softprompt.system.locks import is_path_of

MAX_LINE_BYTES = 8 << 20  # the longest prompt takes 1.2 MB as JSON
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_APPEND
_ID = re.compile(r"[0-9a-f]{16}")
_STATES: tuple[str, ...] = get_args(State)
_LINE_NUMBER = re.compile(rb'\{"line": (\d{1,19})')
_START = re.compile(rb'\{"line": \d{1,19}, "state": "(?:%s)", "prompt": "' % "|".join(_STATES).encode())
_LINE_ENDS = (b'"error": null}\n', b'"}}\n')
_KEYS = frozenset(field.name for field in fields(Result))
_REQUIRED_KEYS = frozenset({"line", "state", "prompt", "id", "error"})  # in a line of any version


@dataclass(frozen=True)
class ResultLine:
    """A line of the output file. `entry` is the id as a number, or None if the row is not a valid job."""

    line: int
    prompt: str
    entry: int | None
    failed: bool


def parse_result(raw: bytes, is_recorded: bool = False) -> ResultLine | None:
    """Parse a line. Return None if it is not a result.

    Args:
        is_recorded: whether our record covers the line. Another version of this program may then have written it, with
            different keys.
    """
    try:
        values: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not (values.keys() >= _REQUIRED_KEYS if is_recorded else values.keys() == _KEYS):
        return None
    line, state, prompt, entry, error = (values[key] for key in ("line", "state", "prompt", "id", "error"))
    failed = state == "failed"
    is_typed = type(line) is int and 0 <= line < 1 << 63 and state in _STATES and isinstance(prompt, str)
    if not is_typed or not isinstance(entry, str) or not (_ID.fullmatch(entry) or (failed and not entry)):
        return None
    if not (isinstance(error, dict) if failed else error is None):
        return None
    return ResultLine(line, prompt, int(entry, 16) if entry else None, failed)


def is_start_of_result(text: bytes) -> bool:
    """Return whether `text` can be the start of a result line."""
    if not text.isascii() or not text.decode("ascii").isprintable() or _is_json(text):
        return False
    number = _LINE_NUMBER.match(text)
    starts = (
        b'{"line": %s, "state": "%s", "prompt": "' % (number[1] if number else b"1", state.encode())
        for state in _STATES
    )
    return _START.match(text) is not None or any(start.startswith(text) for start in starts)


def is_end_of_result(text: bytes) -> bool:
    """Return whether `text` could be the end of a result line whose start is missing."""
    return any(text.endswith(end) or end.endswith(text) for end in _LINE_ENDS)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _can_be_torn(raw: bytes, offset: int, recorded_length: int | None) -> bool:
    """Return whether a crash can have left these bytes at `offset`: the start of a result, zeros, or both.

    Beyond the recorded length, pages can reach the disk in any order, so zeros can precede complete lines. Without a
    record, only the end of the file can be incomplete, and earlier lines or a long start must show that it is ours.
    """
    start = raw.split(b"\0", 1)[0]
    has_end, has_zeros = raw.endswith(b"\n"), b"\0" in raw
    if not is_start_of_result(start.removesuffix(b"\n")):
        return False
    if recorded_length is not None and offset >= recorded_length:
        return is_end_of_result(raw.rsplit(b"\0", 1)[1]) if has_zeros else not has_end
    return not has_end and not raw[len(start) :].strip(b"\0") and (offset > 0 or _START.match(start) is not None)


class OutputFile:
    """The output file at `path`. The caller must hold a lock, so that only one process uses the file.

    `ids` contains the entries that have a line. Lines for prompts that are not in this batch are kept.

    Args:
        name: the path as given by the user, for messages.
        spool: the rows of this batch. Their error lines are removed, because these rows are tried again.
        record_path: path of our record about the file.
        batch: id of this batch.

    Raises:
        FileRefused: the file is not ours or cannot be written. It is left unchanged.
    """

    def __init__(self, path: Path, name: str, spool: Spool, record_path: Path, batch: str) -> None:
        self.path, self.name = path, name
        self.ids: set[int] = set()
        self._record_path = record_path
        self._descriptor = -1
        try:
            self._open()
            record = load_record(record_path)
            self._remove_stale(record)
            self._proof = record.find_proof(self._descriptor)
            is_empty = not os.fstat(self._descriptor).st_size
            self._batch = batch if is_empty or (self._proof and record.batch == batch) else ""
            self._length, self._is_unfinished, has_duplicates, errors = self._read_lines()
            superseded = self._superseded_errors(errors, spool)
            if superseded or has_duplicates:
                self._replace(superseded)
            else:
                os.ftruncate(self._descriptor, self._length)
                if self._is_unfinished:
                    self._length += os.write(self._descriptor, b"\n")
            self.sync()
        except OSError as error:
            self.close()
            raise FileRefused(
                f"cannot write {name}: {error.strerror or error}. Choose another file for {option('out')}."
            ) from error
        except BaseException:  # including Ctrl-C
            self.close()
            raise

    def add(self, line: bytes) -> None:
        """Append a line. If this raises OSError, the next run removes the incomplete line."""
        view = memoryview(line)
        with name_path_in_errors(self.path):
            while view:
                view = view[os.write(self._descriptor, view) :]
        self._length += len(line)
        if self._length == len(line):  # the first line, because a record of 0 bytes proves too little
            self.sync()

    def sync(self) -> None:
        """Flush the lines to disk, then record their length. A crash in between leaves the previous, shorter length."""
        with name_path_in_errors(self.path):
            sync(self._descriptor)
        save_record(self._record_path, OutputRecord((self._to_record(),), self._batch))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            # before opening, because opening some devices has side effects
            self._check_is_regular(Path(self.name).stat())
        self._descriptor = os.open(self.path, _FLAGS, 0o666)
        self._check_is_regular(os.fstat(self._descriptor))

    def _remove_stale(self, record: OutputRecord) -> None:
        """Remove the temporary file left behind by a crash during `_replace`. The record holds its inode."""
        if len(record.files) > 1:
            pattern = re.compile(rf"\.{re.escape(self.path.name)}\.[0-9a-f]{{16}}{re.escape(PARTIAL_SUFFIX)}")
            recorded = {(file.device, file.inode) for file in record.files}
            for partial in filter(lambda path: pattern.fullmatch(path.name), self.path.parent.iterdir()):
                status = partial.lstat()
                if (status.st_dev, status.st_ino) in recorded:
                    partial.unlink()

    def _check_is_regular(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            advice = wording(
                "Without --out, the results go to standard output", f"Choose another file for {option('out')}"
            )
            raise FileRefused(f"{self.name} is not a regular file. {advice}.")

    def _to_record(self) -> WrittenFile:
        return WrittenFile.from_status(os.fstat(self._descriptor), self._length)

    def _read_lines(self) -> tuple[int, bool, bool, list[ResultLine]]:
        """Read the complete lines into `ids`.

        Returns:
            Their total length, whether the last line end is missing, whether any entry repeats, and the error lines.
        """
        length, has_end, has_duplicates = 0, True, False
        errors = []
        for raw, line in self._iter_lines():
            length += len(raw)
            has_end = raw.endswith(b"\n")
            if line.failed:
                errors.append(line)
            elif line.entry is not None:
                has_duplicates |= line.entry in self.ids
                self.ids.add(line.entry)
        return length, not has_end, has_duplicates, errors

    def _iter_lines(self) -> Iterator[tuple[bytes, ResultLine]]:
        """Yield every complete line and its parsed content, up to an incomplete end.

        Raises FileRefused if the file is not ours.
        """
        recorded_length = self._proof.length if self._proof else None
        offset, is_torn = 0, False
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            while raw := file.readline(MAX_LINE_BYTES):
                text = raw if raw.endswith(b"\n") else raw.rstrip(b"\0")  # a power failure can leave zeros
                line = parse_result(text, recorded_length is not None and offset + len(raw) <= recorded_length)
                if line and not is_torn:
                    yield text, line
                    is_torn = text != raw
                elif (line and recorded_length is not None) or _can_be_torn(raw, offset, recorded_length):
                    is_torn = True
                else:
                    raise FileRefused(
                        f"{self.name} already exists and is not a batch output file (unexpected data at byte "
                        f"{offset + 1:,}). It was left unchanged. Choose another file for {option('out')}."
                    )
                offset += len(raw)

    def _superseded_errors(self, errors: list[ResultLine], spool: Spool) -> set[ResultLine]:
        """Return the error lines of this batch's rows, which are tried again and get new lines.

        A row that is not a valid job has no id, so its line number and prompt identify it. If no other batch has
        written to the file, the prompt is enough, and any error line without a prompt comes from an earlier version of
        this batch.
        """
        if not errors:
            return set()
        entries = {line.entry for line in errors if line.entry is not None}
        superseded_ids = entries & self.ids | {entry for entry in spool.ids if entry in entries}
        row_keys = {(line.line, line.prompt) for line in errors}
        prompts = {line.prompt for line in errors}
        known = [row for row in spool.prompts() if row in row_keys or row[1] in prompts]
        known_keys, known_prompts = set(known), {prompt for _, prompt in known} | {""}
        return {
            line
            for line in errors
            if (line.entry in superseded_ids if line.entry is not None
                else (line.line, line.prompt) in known_keys or (self._batch and line.prompt in known_prompts))
        }  # fmt: skip

    def _replace(self, superseded: set[ResultLine]) -> None:
        """Replace the file with one that has each entry only once and no superseded errors."""
        before = os.fstat(self._descriptor)
        if before.st_nlink > 1:
            raise FileRefused(
                f"{self.name} must be replaced to remove its old errors, but it has a hard link, which would still "
                f"point to the old file. It was left unchanged. Choose another file for {option('out')}."
            )
        partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
        descriptor, length, seen = -1, 0, set[int]()
        try:
            descriptor = os.open(partial, _FLAGS | os.O_EXCL, stat.S_IMODE(before.st_mode))
            # a crash can leave either file at the path, so the record contains both
            save_record(
                self._record_path,
                OutputRecord((WrittenFile.from_status(os.fstat(descriptor), 0), self._to_record()), self._batch),
            )
            with os.fdopen(os.dup(descriptor), "wb") as file:
                for raw, line in self._iter_lines():
                    if line in superseded or (line.entry in seen and not line.failed):
                        continue
                    if line.entry is not None and not line.failed:
                        seen.add(line.entry)
                    length += file.write(raw if raw.endswith(b"\n") else raw + b"\n")
            sync(descriptor)
            if not is_path_of(self.path, self._descriptor):
                raise FileRefused(f"another program has replaced {self.name}. It was left unchanged. Try again.")
            partial.replace(self.path)
        except BaseException:  # Ctrl-C must not leave a temporary file either
            partial.unlink(missing_ok=True)
            if descriptor >= 0:
                os.close(descriptor)
            raise
        sync_folder(self.path.parent)
        os.close(self._descriptor)
        self._descriptor, self._length = descriptor, length
