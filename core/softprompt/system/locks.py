"""Advisory lock files. The kernel releases a lock when its holder dies."""

from __future__ import annotations

import fcntl
import os
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


def is_path_of(path: Path, descriptor: int) -> bool:
    """Return whether `path` still names the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
