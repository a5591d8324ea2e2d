"""Advisory lock files: the kernel frees them when their holder dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def take(path: Path) -> int | None:
    """The descriptor of a lock now held, or None where another process holds it. The kernel frees it when its holder dies."""
    while True:
        descriptor = os.open(path, _FLAGS, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:  # Lustre and NFS can be mounted without locks
            os.close(descriptor)
            raise OSError(error.errno, f"no locks there: {error.strerror}", str(path)) from error
        if leads_to(path, descriptor):
            return descriptor
        os.close(descriptor)  # it was removed meanwhile: a lock that nobody else would find


def leads_to(path: Path, descriptor: int) -> bool:
    """Whether `path` is the file that is open as `descriptor`."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
