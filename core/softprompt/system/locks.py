"""Advisory lock files. The kernel releases a lock when its holder dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def try_lock(path: Path) -> int | None:
    """Lock the file `path`. Return its descriptor, or None if another process holds the lock."""
    while True:
        descriptor = os.open(path, _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:  # Lustre and NFS can be mounted without lock support
            os.close(descriptor)
            raise OSError(error.errno, f"its file system lacks lock support: {error.strerror}", str(path)) from error
        if is_path_of(path, descriptor):
            return descriptor
        os.close(descriptor)  # the file has been removed since, so no other process would find this lock


def lock_holder(path: Path) -> int | None:
    """Return the id of the process that holds the lock on the file `path`.

    Returns None if no process holds it or if the holder cannot be found: it belongs to another user, or this is not
    Linux.
    """
    try:
        file = os.lstat(path)
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return None
    for lock in locks:  # such as `1: FLOCK ADVISORY WRITE 4711 08:01:131 0 EOF`; see proc_locks(5)
        if lock[1] == "FLOCK" and lock[5].rpartition(":")[2] == str(file.st_ino) and _holds_lock(lock[4], file):
            return int(lock[4])
    return None


def _holds_lock(pid: str, file: os.stat_result) -> bool:
    """Return whether a process has a locked descriptor of the file.

    /proc/locks alone is not enough: inodes repeat across disks, and the id may by now be of another process.
    """
    folder = Path(f"/proc/{pid}")
    with suppress(OSError):
        for descriptor in (folder / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                information = folder / "fdinfo" / descriptor.name
                if os.path.samestat(descriptor.stat(), file) and "FLOCK" in information.read_text():
                    return True
    return False


def is_path_of(path: Path, descriptor: int) -> bool:
    """Return whether `path` still names the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
