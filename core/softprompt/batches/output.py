"""A file of results, one JSON object a line: exactly one for each prompt, however often the process is killed.

The file lies in the user's folder, under a name that may already be somebody else's. So it is continued only where our
own record proves that we wrote it (`record`), or where every whole line is a result. Of such a file we cut what a crash
left after the last whole line, and replace the error lines of this batch. Any other file is refused and stays as it is.
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

from softprompt.batches.record import Record, Written, load_record, save_record
from softprompt.batches.results import Result, State
from softprompt.batches.spool import Spool
from softprompt.errors import FileRefused
from softprompt.system.files import PARTIAL, naming, sync_folder
from softprompt.system.filesystems import sync
from softprompt.system.locks import leads_to

MAX_LINE_BYTES = 8 << 20  # bytes of a line: the longest prompt as JSON has 1.2 MB
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_APPEND
_ID = re.compile(r"[0-9a-f]{16}")
_STATES: tuple[str, ...] = get_args(State)
_LINE_NUMBER = re.compile(rb'\{"line": (\d{1,19})')
_HEAD = re.compile(rb'\{"line": \d{1,19}, "state": "(?:%s)", "prompt": "' % "|".join(_STATES).encode())
_ENDS = (b'"error": null}\n', b'"}}\n')
_KEYS = frozenset(field.name for field in fields(Result))
_NEEDED = frozenset({"line", "state", "prompt", "id", "error"})  # of a line that another version wrote


@dataclass(frozen=True)
class ResultLine:
    """A line of the file: the row it is about, and the entry, None for a row that never became a job."""

    line: int
    prompt: str
    entry: int | None
    failed: bool


def parse_result(raw: bytes, is_noted: bool = False) -> ResultLine | None:
    """Return what a line says, or None for a line that is no result.

    Args:
        is_noted: our note covers the line, so another version of this program may have written it, with other keys.
    """
    try:
        values: Any = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or not (values.keys() >= _NEEDED if is_noted else values.keys() == _KEYS):
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
    """Return whether `text` can be the start of a line that this program was writing."""
    if not text.isascii() or not text.decode("ascii").isprintable() or _is_json(text):
        return False
    number = _LINE_NUMBER.match(text)
    heads = (
        b'{"line": %s, "state": "%s", "prompt": "' % (number[1] if number else b"1", state.encode())
        for state in _STATES
    )
    return _HEAD.match(text) is not None or any(head.startswith(text) for head in heads)


def is_end_of_result(text: bytes) -> bool:
    """Return whether `text` can be the end of such a line, whose beginning was lost."""
    return any(text.endswith(end) or end.endswith(text) for end in _ENDS)


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _can_be_torn(raw: bytes, at: int, noted: int | None) -> bool:
    """Return whether a crash can have left these bytes at `at` instead of a line: the start of a result, zeros, or both.

    Past what we noted, the pages of a file can come to the disk in any order, so zeros can stand before whole lines.
    Elsewhere only the end of the file can be torn, and the lines before it, or a long start, must say whose it is.
    """
    start = raw.split(b"\0", 1)[0]
    has_end, has_zeros = raw.endswith(b"\n"), b"\0" in raw
    if not is_start_of_result(start.removesuffix(b"\n")):
        return False
    if noted is not None and at >= noted:
        return is_end_of_result(raw.rsplit(b"\0", 1)[1]) if has_zeros else not has_end
    return not has_end and not raw[len(start) :].strip(b"\0") and (at > 0 or _HEAD.match(start) is not None)


class OutFile:
    """The results in the file `path`, and those that are added. One process at a time: the caller holds a lock.

    `ids` are the entries whose line is there. Lines of prompts that are not in this batch stay.

    Args:
        name: the file as the user named it, for messages.
        spool: the rows of this batch. Their error lines are taken out, because these rows are tried again.
        record_path: where our note about the file lies.
        batch: the id of this batch.

    Raises:
        FileRefused: the file is not ours to change, or cannot be written. It stays as it is.
    """

    def __init__(self, path: Path, name: str, spool: Spool, record_path: Path, batch: str) -> None:
        self.path, self.name = path, name
        self.ids: set[int] = set()
        self._record_path = record_path
        self._descriptor = -1
        try:
            self._open()
            record = load_record(record_path)
            self._sweep(record)
            self._proof = record.proof(self._descriptor)
            is_empty = not os.fstat(self._descriptor).st_size
            self._batch = batch if is_empty or (self._proof and record.batch == batch) else ""
            self._length, self._is_unfinished, has_doubles, errors = self._scan()
            superseded = self._superseded(errors, spool)
            if superseded or has_doubles:
                self._replace(superseded)
            else:
                os.ftruncate(self._descriptor, self._length)
                if self._is_unfinished:
                    self._length += os.write(self._descriptor, b"\n")
            self.sync()
        except OSError as error:
            self.close()
            raise FileRefused(
                f"{name} cannot be written: {error.strerror or error}. Give --out another name"
            ) from error
        except BaseException:  # Ctrl-C too: close the file, and raise it again
            self.close()
            raise

    def add(self, line: bytes) -> None:
        """Add a line in one piece. Raises OSError; the next run cuts what is left of the line then."""
        view = memoryview(line)
        with naming(self.path):
            while view:
                view = view[os.write(self._descriptor, view) :]
        self._length += len(line)
        if self._length == len(line):  # the first line: from now on a note of no bytes would prove too little
            self.sync()

    def sync(self) -> None:
        """Bring the lines to the disk, then note how many bytes they are: a crash in between leaves a note of fewer."""
        with naming(self.path):
            sync(self._descriptor)
        save_record(self._record_path, Record((self._written(),), self._batch))

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            self._check_is_regular(
                Path(self.name).stat()
            )  # before it is opened, which is no small thing for some devices
        self._descriptor = os.open(self.path, _FLAGS, 0o666)
        self._check_is_regular(os.fstat(self._descriptor))

    def _sweep(self, record: Record) -> None:
        """Remove what a crash left of a new file that was to take this one's place. Our record knows it by its inode."""
        if len(record.files) > 1:
            name = re.compile(rf"\.{re.escape(self.path.name)}\.[0-9a-f]{{16}}{re.escape(PARTIAL)}")
            noted = {(file.device, file.inode) for file in record.files}
            for left in filter(lambda path: name.fullmatch(path.name), self.path.parent.iterdir()):
                status = left.lstat()
                if (status.st_dev, status.st_ino) in noted:
                    left.unlink()

    def _check_is_regular(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            raise FileRefused(f"{self.name} is no regular file: without --out the results go to standard output")

    def _written(self) -> Written:
        return Written.of(os.fstat(self._descriptor), self._length)

    def _scan(self) -> tuple[int, bool, bool, list[ResultLine]]:
        """Return the bytes of whole lines, whether the last lacks its end, whether one is there twice, and the errors."""
        length, has_end, has_doubles = 0, True, False
        errors = []
        for raw, line in self._lines():
            length += len(raw)
            has_end = raw.endswith(b"\n")
            if line.failed:
                errors.append(line)
            elif line.entry is not None:
                has_doubles |= line.entry in self.ids
                self.ids.add(line.entry)
        return length, not has_end, has_doubles, errors

    def _lines(self) -> Iterator[tuple[bytes, ResultLine]]:
        """Yield every whole line and what it says, up to the torn end. Raises FileRefused for a file that is not ours."""
        noted = self._proof.length if self._proof else None
        at, is_torn = 0, False
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            file.seek(0)
            while raw := file.readline(MAX_LINE_BYTES):
                text = (
                    raw if raw.endswith(b"\n") else raw.rstrip(b"\0")
                )  # a machine that lost its power can leave zeros
                line = parse_result(text, noted is not None and at + len(raw) <= noted)
                if line and not is_torn:
                    yield text, line
                    is_torn = text != raw
                elif (line and noted is not None) or _can_be_torn(raw, at, noted):
                    is_torn = True
                else:
                    raise FileRefused(
                        f"{self.name} is there already, and is no file of a batch's results (byte {at + 1:,}): nothing in "
                        "it was changed. Give --out another name"
                    )
                at += len(raw)

    def _superseded(self, errors: list[ResultLine], spool: Spool) -> set[ResultLine]:
        """Return those error lines whose row is in this batch: it is tried again, and told again.

        A row that never became a job has no id, and is known by its place and its prompt. Where no other batch wrote to
        the file, its prompt is enough, and one without a prompt is certainly an older state of this batch.
        """
        if not errors:
            return set()
        entries = {line.entry for line in errors if line.entry is not None}
        superseded_ids = entries & self.ids | {entry for entry in spool.ids if entry in entries}
        places = {(line.line, line.prompt) for line in errors}
        prompts = {line.prompt for line in errors}
        known = [row for row in spool.texts() if row in places or row[1] in prompts]
        known_places, known_prompts = set(known), {prompt for _, prompt in known} | {""}
        return {
            line
            for line in errors
            if (line.entry in superseded_ids if line.entry is not None
                else (line.line, line.prompt) in known_places or (self._batch and line.prompt in known_prompts))
        }  # fmt: skip

    def _replace(self, superseded: set[ResultLine]) -> None:
        """Put a file in its place that has each entry once, and no superseded errors."""
        before = os.fstat(self._descriptor)
        if before.st_nlink > 1:
            raise FileRefused(
                f"{self.name} must be rewritten without its old errors, but has another name (a hard link), under which "
                "the old lines would stay. Nothing in it was changed: give --out another name"
            )
        partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}{PARTIAL}")
        descriptor, length, seen = -1, 0, set[int]()
        try:
            descriptor = os.open(partial, _FLAGS | os.O_EXCL, stat.S_IMODE(before.st_mode))
            # whichever of the two a crash leaves at the path, the record proves it
            save_record(self._record_path, Record((Written.of(os.fstat(descriptor), 0), self._written()), self._batch))
            with os.fdopen(os.dup(descriptor), "wb") as file:
                for raw, line in self._lines():
                    if line in superseded or (line.entry in seen and not line.failed):
                        continue
                    if line.entry is not None and not line.failed:
                        seen.add(line.entry)
                    length += file.write(raw if raw.endswith(b"\n") else raw + b"\n")
            sync(descriptor)
            if not leads_to(self.path, self._descriptor):
                raise FileRefused(f"{self.name} was replaced meanwhile: nothing was changed. Do it again")
            partial.replace(self.path)
        except BaseException:  # also Ctrl-C must leave no litter; it goes on as it came
            partial.unlink(missing_ok=True)
            if descriptor >= 0:
                os.close(descriptor)
            raise
        sync_folder(self.path.parent)
        os.close(self._descriptor)
        self._descriptor, self._length = descriptor, length
