"""Writing a file so that it is either whole or not there, and private whatever the umask unless it is meant for others."""

from __future__ import annotations

import errno
import io
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from softprompt.system.filesystems import UNSUPPORTED, set_mode, sync
from softprompt.system.paths import free_cache

Result = TypeVar("Result")

PARTIAL = ".partial"  # how the name of a file ends that is being written; it begins with a dot
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)  # the disk is full, or what this user may have of it
_PARTIAL_NAME = re.compile(r"\.(?:.+\.)?[0-9a-f]{16}\.partial", re.DOTALL)
PRIVATE, PUBLIC = 0o600, 0o666  # modes: for the user alone; for whomever the umask lets
STALE = 3600.0  # seconds after which such a file is what a crash left: a write takes less than one


def retry_without_reserve(folder: Path, write: Callable[[], Result]) -> Result:
    """Call `write`; where no space is left in `folder`, delete what can be made again, and call it once more."""
    try:
        return write()
    except OSError as error:
        if error.errno not in NO_SPACE or not free_cache(folder):
            raise
    return write()


def write_new(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Writes `data` as the new file `path`, durably; raises FileExistsError if there is one, OSError with nothing left behind.

    A private temporary file in the same folder, synced, then given its name; then the folder is synced. Only after that does
    it return. What failed once is not tried again on the same file: a sync that fails may have dropped what was written.
    """
    with naming(path):
        retry_without_reserve(path.parent, lambda: _write_new(path, data, mode))


def _write_new(path: Path, data: bytes, mode: int) -> None:
    partial = _written(path, data, mode)
    try:
        name_new(partial, path)
    except BaseException:  # also Ctrl-C must leave no litter; it goes on as it came
        partial.unlink(missing_ok=True)
        raise
    try:
        sync_folder(path.parent)
    except OSError:  # whether the name would outlive a crash is not known: better none, and said so
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Writes `data` as `path`, whether there is one or not, durably and at once; raises OSError with the old one as it was."""
    with naming(path):
        retry_without_reserve(path.parent, lambda: _replace_file(path, data, mode))


def _replace_file(path: Path, data: bytes, mode: int) -> None:
    partial = _written(path, data, mode)
    try:
        partial.replace(path)
    except BaseException:  # also Ctrl-C must leave no litter; it goes on as it came
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let every OSError inside name `path`: a failed write names no file, and a failed rename names a temporary one."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = os.fspath(path), None
        raise


def _written(path: Path, data: bytes, mode: int) -> Path:
    """A new file beside `path` with `data` in it, synced."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            if mode == PRIVATE:  # a umask may have taken even the user's own rights away
                set_mode(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            sync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:  # also Ctrl-C must leave no litter; it goes on as it came
        partial.unlink(missing_ok=True)
        raise
    return partial


def name_new(partial: Path, path: Path) -> None:
    """Renames without replacing: a hard link refuses an existing name, which rename would overwrite."""
    try:
        os.link(partial, path)
    except FileExistsError:
        # a network's server that was asked twice, since its first answer was lost, says so of what it has done itself
        if not _is_same(partial, path):
            raise
    except OSError as error:
        if error.errno not in UNSUPPORTED:  # else a file system without hard links: exFAT, some network mounts
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "it exists already", str(path)) from None
        partial.rename(path)
        return
    try:
        partial.unlink()
    except OSError:  # who is told that the save failed must not find it
        path.unlink(missing_ok=True)
        raise


def _is_same(a: Path, b: Path) -> bool:
    try:
        return os.path.samestat(a.lstat(), b.lstat())
    except OSError:
        return False


def read_file(path: Path | str, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes; raises OSError for a link, another kind of file, or a longer one."""
    with open_file(path, most) as file:
        return file.readall()[:most]


def open_file(path: Path | str, most: int) -> io.FileIO:
    """Open a regular file for reading, without a buffer.

    Raises OSError for a link, for anything that is not a regular file, and for a file of more than `most` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not hold us up
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(0, "it is no regular file")
        if found.st_size > most:
            raise OSError(0, f"it has {found.st_size:,} bytes, more than the {most:,} that such a file can have")
        return io.FileIO(descriptor)
    except BaseException:  # Ctrl-C too: close the file, and raise it again
        os.close(descriptor)
        raise


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def is_partial(name: str) -> bool:
    """Return whether this program named the file so while it was writing it. Other programs have names that end alike."""
    return _PARTIAL_NAME.fullmatch(name) is not None


def sweep(partial: Path) -> None:
    """Removes a half-written file that a crash left; one that may still be written stays, and so does what is not ours."""
    with suppress(OSError):
        status = partial.lstat()
        is_ours = is_partial(partial.name) and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if is_ours and time.time() - status.st_mtime > STALE:
            partial.unlink()
