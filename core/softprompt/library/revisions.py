"""The files of the library: `<id>.<revision>.safetensors`. Each is written once and never changed.

The highest revision of an id is the current one: a soft prompt, or a tombstone if the entry is in the trash. Each
change creates a file for the next revision. If two processes try that, the file system lets only one succeed.
"""

from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import EntryDamaged, HomeError, LibraryError
from softprompt.library.header import MAX_ENTRY_BYTES, read_provenance
from softprompt.prompts.safetensors_header import MAX_HEADER_BYTES, header_length
from softprompt.system.files import is_partial, read_file, remove_stale_partial, sync_folder, write_new
from softprompt.system.paths import how_to_move, make_folder

if TYPE_CHECKING:  # imports numpy, which takes 0.1 s and is not needed for listing
    from softprompt.library.entry import Entry, Tombstone

ENTRY_ID = re.compile(r"[0-9a-f]{16}")
FILE_NAME = re.compile(r"([0-9a-f]{16})\.([1-9][0-9]{0,8})\.safetensors")
_FIRST_READ_BYTES = 1 << 15  # most headers are shorter


class Revisions:
    """The folder with the entry files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, entry_id: str, revision: int) -> Path:
        return self.folder / f"{entry_id}.{revision}.safetensors"

    def scan(self) -> dict[str, int]:
        """Return the inode of every entry file by name. Removes temporary files left by a crash. Raises HomeError."""
        inodes = {}
        try:
            with os.scandir(self.folder) as files:
                for file in files:
                    if FILE_NAME.fullmatch(file.name):
                        inodes[file.name] = file.inode()
                    elif is_partial(file.name):
                        remove_stale_partial(Path(file.path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._read_error(error) from error
        return inodes

    def check_readable(self) -> None:
        """Raise HomeError if the folder exists but cannot be read."""
        try:
            os.scandir(self.folder).close()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._read_error(error) from error

    def _read_error(self, error: OSError) -> HomeError:
        advice = how_to_move(self.folder, "a folder that you own")
        return HomeError(f"cannot read {self.folder}: {error.strerror}. Fix this, or {advice}.")

    def changed_at(self) -> int:
        """Return the folder's mtime in ns, or 0 if there is no folder. It changes when files are added or removed."""
        try:
            return self.folder.stat().st_mtime_ns
        except OSError:
            return 0

    def revision_numbers(self, entry_id: str) -> list[int]:
        """Return the revision numbers of an id, ascending."""
        return sorted(
            int(match[2]) for match in map(FILE_NAME.fullmatch, self.scan()) if match and match[1] == entry_id
        )

    def newest(self, entry_id: str, known: int) -> int:
        """Return the highest revision, searching up from `known`. The highest revision is never removed."""
        while os.path.lexists(self.path(entry_id, known + 1)):
            known += 1
        return known

    def read(self, entry_id: str, revision: int) -> Entry | Tombstone:
        """Read a revision and verify every byte. Raises EntryDamaged, or FileNotFoundError if it does not exist."""
        from softprompt.library.entry import unpack_any

        path = self.path(entry_id, revision)
        try:
            entry = unpack_any(read_file(path, MAX_ENTRY_BYTES), str(path))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EntryDamaged(f"cannot read {path}: {error.strerror}") from error
        _check_name(path, entry.id, entry.revision)
        return entry

    def read_provenance(self, entry_id: str, revision: int) -> dict[str, Any]:
        """Read a revision's provenance from its header, unverified. Raises EntryDamaged or FileNotFoundError."""
        path = self.path(entry_id, revision)
        try:
            start = _read_start(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EntryDamaged(f"cannot read {path}: {error.strerror}") from error
        provenance = read_provenance(start, str(path))
        _check_name(path, provenance.get("id"), provenance.get("revision"))
        return provenance

    def write(self, entry: Entry | Tombstone) -> None:
        """Write a revision to a new file, durably.

        Raises:
            FileExistsError: the revision exists.
            EntryRefused: the file would be unreadable.
            LibraryError: the id has no revision number left.
            HomeError: the file cannot be written.
        """
        from softprompt.library.entry import pack_verified

        path = self.path(entry.id, entry.revision)
        if not FILE_NAME.fullmatch(path.name):
            raise LibraryError(
                f"cannot save {path.name}: no revision number is left. Use `duplicate` to copy the entry."
            )
        raw = pack_verified(entry)
        make_folder(self.folder)
        try:
            write_new(path, raw)
        except FileExistsError:
            raise
        except OSError as error:
            raise HomeError(
                f"cannot write {path}: {error.strerror}. Nothing was saved. "
                f"Free some space, or {how_to_move(self.folder)}."
            ) from error

    def undo_write(self, entry: Entry) -> None:
        """Remove a revision that should not have been written. Raises HomeError."""
        try:
            self.path(entry.id, entry.revision).unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            raise HomeError(f"cannot write to {self.folder}: {error.strerror}") from error

    def remove_below(self, below: dict[str, int]) -> None:
        """Remove all revisions of each id that are lower than `below[id]`, oldest first. Raises HomeError."""
        matches = filter(None, map(FILE_NAME.fullmatch, self.scan()))
        doomed = sorted((int(match[2]), match[1]) for match in matches if int(match[2]) < below.get(match[1], 0))
        try:
            for number, entry_id in doomed:
                self.path(entry_id, number).unlink(missing_ok=True)
            if doomed:
                sync_folder(self.folder)
        except OSError as error:
            raise HomeError(
                f"cannot write to {self.folder}: {error.strerror}. Some entries were not purged."
            ) from error


def _read_start(path: Path) -> bytes:
    """Read the start of a regular file, up to the end of its header."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is not a regular file")
        start = os.read(descriptor, _FIRST_READ_BYTES)
        missing = 8 + header_length(start) - len(start)
        while 0 < missing <= MAX_HEADER_BYTES and (more := os.read(descriptor, missing)):
            start += more
            missing -= len(more)
        return start
    finally:
        os.close(descriptor)


def _check_name(path: Path, entry_id: object, revision: object) -> None:
    if type(revision) is not int or path.name != f"{entry_id}.{revision}.safetensors":
        raise EntryDamaged(f"{path} has the wrong name: it contains revision {revision} of {entry_id}")


def now() -> str:
    """Return the current ISO time, precise enough to order changes within a second."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
