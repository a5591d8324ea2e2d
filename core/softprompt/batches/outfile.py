"""A file of results, one JSON object a line: exactly one for each prompt, however often the process is killed."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from softprompt.errors import FileRefused
from softprompt.files import PARTIAL, naming, sweep, sync_folder
from softprompt.mounts import sync

BEGINS = b'{"line": '  # how each of its lines begins, by which a torn one is known
LONGEST = 8 << 20  # bytes of a line: the longest prompt as JSON has 1.2 MB
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_APPEND


class OutFile:
    """The results in the file `path`, and those that are added. One process at a time: the caller holds a lock.

    What a kill left of the last line is cut. Lines of errors are taken out, for what failed is tried again. `ids` are the entries whose
    line is there. Raises FileRefused for a file that is not one of results, which stays as it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: set[int] = set()
        self._descriptor = -1
        try:
            for left in path.parent.glob(f".*{PARTIAL}"):
                if left.name.startswith(f".{path.name}."):
                    sweep(left)
            self._descriptor = os.open(path, _FLAGS, 0o666)
            if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
                raise FileRefused(f"{path} is no regular file: without --out the results go to standard output")
            whole, stale = 0, False
            for raw, entry in self._entries():
                whole += len(raw)
                stale |= entry is None or entry in self.ids
                if entry is not None:
                    self.ids.add(entry)
            if stale:
                self._replace()
            else:
                os.ftruncate(self._descriptor, whole)
        except OSError as error:
            self.close()
            raise FileRefused(f"{path} cannot be written: {error.strerror}") from error
        except BaseException:
            self.close()
            raise

    def add(self, line: bytes) -> None:
        """Adds a line in one piece. Raises OSError; what is left of the line then is cut the next time."""
        view = memoryview(line)
        with naming(self.path):
            while view:
                view = view[os.write(self._descriptor, view) :]

    def sync(self) -> None:
        with naming(self.path):
            sync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _entries(self) -> Iterator[tuple[bytes, int | None]]:
        """(line, its entry, None for an error) of every line that is whole. Raises FileRefused."""
        with self.path.open("rb") as file:
            while raw := file.readline(LONGEST):
                if not raw.endswith(b"\n") and (raw.startswith(BEGINS) or BEGINS.startswith(raw.rstrip(b"\0"))):
                    return  # torn; a machine that lost its power can leave zeros
                yield raw, _entry_in(raw, self.path)

    def _replace(self) -> None:
        """Puts a file in its place that has each entry once, and no errors."""
        partial = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}{PARTIAL}")
        seen: set[int] = set()
        try:
            descriptor = os.open(partial, _FLAGS | os.O_EXCL, stat.S_IMODE(os.fstat(self._descriptor).st_mode))
            with os.fdopen(descriptor, "wb") as file:
                for raw, entry in self._entries():
                    if entry is not None and entry not in seen:
                        seen.add(entry)
                        file.write(raw)
                file.flush()
                sync(file.fileno())
            partial.replace(self.path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(self.path.parent)
        os.close(self._descriptor)
        self._descriptor = os.open(self.path, _FLAGS, 0o666)


def _entry_in(raw: bytes, path: Path) -> int | None:
    try:
        result = json.loads(raw)
        if not (raw.startswith(BEGINS) and raw.endswith(b"\n")):
            raise ValueError(raw[:40])
        return int(result["id"], 16) if result["error"] is None else None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise FileRefused(
            f"{path} is there already, and is no file of a batch's results: nothing in it was changed. Give --out another name"
        ) from None
