"""The files of the library: `<id>.<revision>.safetensors`, each written once and never changed.

The highest revision of an id is what the entry is now: a soft prompt, or a tombstone where it is in the trash. To change an entry
is to create the file of the next revision; of two that try, the file system lets one.
"""

from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import EntryDamaged, HomeError, LibraryError
from softprompt.library.header import MAX_ENTRY_BYTES, MAX_HEADER_BYTES, header_length, provenance_of
from softprompt.system.files import is_partial, read_file, sweep, sync_folder, write_new
from softprompt.system.paths import VARIABLE, make_folder

if TYPE_CHECKING:  # numpy takes 0.1 s to import, and listing does without
    from softprompt.library.entry import Entry, Tombstone

NAME = re.compile(r"([0-9a-f]{16})\.([1-9][0-9]{0,8})\.safetensors")
_FIRST_READ = 1 << 15  # bytes; most headers are shorter


class Revisions:
    """The folder of entries."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, entry_id: str, revision: int) -> Path:
        return self.folder / f"{entry_id}.{revision}.safetensors"

    def scan(self) -> dict[str, int]:
        """The inode of every entry's file by its name. What a crash left half-written is swept. Raises HomeError."""
        found = {}
        try:
            with os.scandir(self.folder) as files:
                for file in files:
                    if NAME.fullmatch(file.name):
                        found[file.name] = file.inode()
                    elif is_partial(file.name):
                        sweep(Path(file.path))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._unreadable(error) from error
        return found

    def check_readable(self) -> None:
        """Raise HomeError where the folder is there and cannot be read."""
        try:
            os.scandir(self.folder).close()
        except FileNotFoundError:
            pass
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> HomeError:
        return HomeError(f"{self.folder} cannot be read: {error.strerror}. Set {VARIABLE} to a folder of yours")

    def changed_at(self) -> int:
        """When a name was last added or removed, in nanoseconds; 0 where there is no folder."""
        try:
            return self.folder.stat().st_mtime_ns
        except OSError:
            return 0

    def numbers(self, entry_id: str) -> list[int]:
        """The revisions of an id, ascending."""
        return sorted(int(match[2]) for match in map(NAME.fullmatch, self.scan()) if match and match[1] == entry_id)

    def newest(self, entry_id: str, known: int) -> int:
        """The highest revision, where `known` is or was one: numbers only rise, and the highest is never removed."""
        while os.path.lexists(self.path(entry_id, known + 1)):
            known += 1
        return known

    def read(self, entry_id: str, revision: int) -> Entry | Tombstone:
        """A revision with its every byte verified. Raises EntryDamaged, and FileNotFoundError where it is gone."""
        from softprompt.library.entry import unpack_any

        path = self.path(entry_id, revision)
        try:
            found = unpack_any(read_file(path, MAX_ENTRY_BYTES), str(path))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EntryDamaged(f"{path} cannot be read: {error.strerror}") from error
        _check_name(path, found.id, found.revision)
        return found

    def provenance(self, entry_id: str, revision: int) -> dict[str, Any]:
        """A revision's provenance as its header gives it, not checked against its bytes. Raises EntryDamaged, FileNotFoundError."""
        path = self.path(entry_id, revision)
        try:
            start = _start_of(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise EntryDamaged(f"{path} cannot be read: {error.strerror}") from error
        provenance = provenance_of(start, str(path))
        _check_name(path, provenance.get("id"), provenance.get("revision"))
        return provenance

    def write(self, entry: Entry | Tombstone) -> None:
        """Creates the file of a revision, durably. Raises FileExistsError where that revision is taken, EntryRefused, HomeError."""
        from softprompt.library.entry import pack_openable

        path = self.path(entry.id, entry.revision)
        if not NAME.fullmatch(path.name):
            raise LibraryError(
                f"{path.name} cannot be saved: no number is left for another revision. `duplicate` makes a new entry of it"
            )
        raw = pack_openable(entry)
        make_folder(self.folder)
        try:
            write_new(path, raw)
        except FileExistsError:
            raise
        except OSError as error:
            raise HomeError(
                f"{path} cannot be written ({error.strerror}); nothing was saved. Make room, or set {VARIABLE} to another folder"
            ) from error

    def take_back(self, entry: Entry) -> None:
        """Removes a revision that was written too late. Raises HomeError."""
        try:
            self.path(entry.id, entry.revision).unlink(missing_ok=True)
            sync_folder(self.folder)
        except OSError as error:
            raise HomeError(f"{self.folder} cannot be written to ({error.strerror})") from error

    def remove(self, below: dict[str, int]) -> None:
        """Removes the revisions of each id that are lower than the number given for it, the oldest first. Raises HomeError."""
        matches = filter(None, map(NAME.fullmatch, self.scan()))
        doomed = sorted((int(match[2]), match[1]) for match in matches if int(match[2]) < below.get(match[1], 0))
        try:
            for number, entry_id in doomed:
                self.path(entry_id, number).unlink(missing_ok=True)
            if doomed:
                sync_folder(self.folder)
        except OSError as error:
            raise HomeError(
                f"{self.folder} cannot be written to ({error.strerror}): not everything was purged"
            ) from error


def _start_of(path: Path) -> bytes:
    """The first bytes of a regular file, the whole header if it has one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(0, "it is no regular file")
        start = os.read(descriptor, _FIRST_READ)
        missing = 8 + header_length(start) - len(start)
        while 0 < missing <= MAX_HEADER_BYTES and (more := os.read(descriptor, missing)):
            start += more
            missing -= len(more)
        return start
    finally:
        os.close(descriptor)


def _check_name(path: Path, entry_id: object, revision: object) -> None:
    if type(revision) is not int or path.name != f"{entry_id}.{revision}.safetensors":
        raise EntryDamaged(f"{path} is not where it belongs: it holds revision {revision} of {entry_id}")


def now() -> str:
    """Return the time for a change; precise enough that what is saved within a second keeps its order."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
