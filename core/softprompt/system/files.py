"""Write files atomically. Files are private regardless of the umask unless `PUBLIC_MODE` is requested."""

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

from softprompt.system.filesystems import UNSUPPORTED_ERRNOS, set_mode, sync
from softprompt.system.paths import free_cache

Result = TypeVar("Result")

PARTIAL_SUFFIX = ".partial"  # marks a file that is being written; its name starts with a dot
NO_SPACE_ERRNOS = (errno.ENOSPC, errno.EDQUOT)  # the disk is full, or the user's quota is exhausted
_PARTIAL_NAME = re.compile(r"\.(?:.+\.)?[0-9a-f]{16}\.partial", re.DOTALL)
PRIVATE_MODE, PUBLIC_MODE = 0o600, 0o666  # for the user only; for everyone the umask allows
STALE_SECONDS = 3600.0  # a write takes less than a second, so an older temporary file was left by a crash


def retry_after_freeing_cache(folder: Path, write: Callable[[], Result]) -> Result:
    """Call `write`. If the disk of `folder` is full, delete rebuildable caches and call `write` once more."""
    try:
        return write()
    except OSError as error:
        if error.errno not in NO_SPACE_ERRNOS or not free_cache(folder):
            raise
    return write()


def write_new(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Write `data` durably to the new file `path`.

    Writes and syncs a temporary file in the same folder, renames it, then syncs the folder. A failed sync is never
    retried on the same file, because the data may be gone by then.

    Raises:
        FileExistsError: `path` exists.
        OSError: the write failed. Nothing is left behind.
    """
    with name_path_in_errors(path):
        retry_after_freeing_cache(path.parent, lambda: _write_new(path, data, mode))


def _write_new(path: Path, data: bytes, mode: int) -> None:
    partial = _write_partial(path, data, mode)
    try:
        rename_new(partial, path)
    except BaseException:  # even Ctrl-C must not leave the temporary file behind
        partial.unlink(missing_ok=True)
        raise
    try:
        sync_folder(path.parent)
    except OSError:  # the name might not survive a crash, so remove it and report the failure
        path.unlink(missing_ok=True)
        raise


def replace_file(path: Path, data: bytes, mode: int = PRIVATE_MODE) -> None:
    """Write `data` to `path` atomically and durably. If that fails, the old file remains. Raises OSError."""
    with name_path_in_errors(path):
        retry_after_freeing_cache(path.parent, lambda: _replace_file(path, data, mode))


def _replace_file(path: Path, data: bytes, mode: int) -> None:
    partial = _write_partial(path, data, mode)
    try:
        partial.replace(path)
    except BaseException:  # even Ctrl-C must not leave the temporary file behind
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_chosen_file(path: Path, data: bytes, replace: bool) -> None:
    """Write a file at a path that the user chose, with the permissions that the umask allows.

    With `replace`, an existing file is replaced, but only a regular file or a link.

    Raises:
        FileExistsError: `path` exists, and `replace` is false.
        OSError: the write failed. An existing file is unchanged.
    """
    if replace and (path.is_fifo() or path.is_char_device() or path.is_block_device() or path.is_socket()):
        raise OSError(0, "it is not a regular file, so it was not replaced")
    (replace_file if replace else write_new)(path, data, PUBLIC_MODE)


@contextmanager
def name_path_in_errors(path: Path) -> Iterator[None]:
    """Name `path` in every OSError raised inside. Failed writes name no file; failed renames name the temporary one."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = os.fspath(path), None
        raise


def _write_partial(path: Path, data: bytes, mode: int) -> Path:
    """Write `data` to a new temporary file beside `path` and sync it."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}{PARTIAL_SUFFIX}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            if mode == PRIVATE_MODE:  # the umask may deny even the user's own access
                set_mode(descriptor, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            sync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:  # even Ctrl-C must not leave the temporary file behind
        partial.unlink(missing_ok=True)
        raise
    return partial


def rename_new(partial: Path, path: Path) -> None:
    """Rename without overwriting: create a hard link, which fails if `path` exists, and remove the old name."""
    try:
        os.link(partial, path)
    except FileExistsError:
        # after a lost reply, a network file system repeats the request and finds its own link
        if not _is_same(partial, path):
            raise
    except OSError as error:
        if error.errno not in UNSUPPORTED_ERRNOS:  # unsupported: exFAT and some network mounts have no hard links
            raise
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "it already exists", str(path)) from None
        partial.rename(path)
        return
    try:
        partial.unlink()
    except OSError:  # a reported failure must not leave the file behind
        path.unlink(missing_ok=True)
        raise


def _is_same(a: Path, b: Path) -> bool:
    try:
        return os.path.samestat(a.lstat(), b.lstat())
    except OSError:
        return False


def read_file(path: Path | str, max_bytes: int) -> bytes:
    """Return the bytes of a regular file. Raises the same errors as `open_file`."""
    with open_file(path, max_bytes) as file:
        return file.readall()[:max_bytes]


def read_chosen_file(path: Path | str, max_bytes: int) -> bytes:
    """Return the bytes of a file that the user chose: a regular file, or a link to one.

    The type is also checked before opening, because opening a device can have side effects.

    Raises OSError like `open_file`, and ValueError for a path that contains a NUL.
    """
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise OSError(0, "it is not a regular file")
    return read_file(os.path.realpath(path), max_bytes)


def open_file(path: Path | str, max_bytes: int) -> io.FileIO:
    """Open a regular file for unbuffered reading.

    Raises OSError for a symlink, for anything else that is not a regular file, and for more than `max_bytes` bytes.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)  # must not wait for a pipe
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is not a regular file")
        if status.st_size > max_bytes:
            raise OSError(0, f"it has {status.st_size:,} bytes; at most {max_bytes:,} are allowed")
        return io.FileIO(descriptor)
    except BaseException:  # even Ctrl-C must close the file
        os.close(descriptor)
        raise


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def is_partial(name: str) -> bool:
    """Return whether `name` is one of our temporary names. Other programs use the same suffix."""
    return _PARTIAL_NAME.fullmatch(name) is not None


def remove_stale_partial(partial: Path) -> None:
    """Remove a temporary file left by a crash, unless it is recent or belongs to another program or user."""
    with suppress(OSError):
        status = partial.lstat()
        is_own = is_partial(partial.name) and stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if is_own and time.time() - status.st_mtime > STALE_SECONDS:
            partial.unlink()
