"""What the file system under a folder can do: not all keep modes, sync folders, or have locks that hold between hosts."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

# how file systems say that they cannot do something: FUSE, vfat, CIFS, 9p and DrvFs each in their own way
UNSUPPORTED = (errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

_SHARED = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|beegfs|glusterfs|ocfs2|gfs2?|panfs|pvfs2|orangefs|wekafs|fuse\..+|fuse"
)


def set_mode(target: Path | int, mode: int) -> None:
    """Set the mode of a path or descriptor, where its file system keeps modes.

    Where it keeps none, the options of its mount say who may read, and nothing here can change that: refusing would
    mean that nothing can be saved there at all. `open_to_others` tells what a mount allows.
    """
    try:
        os.fchmod(target, mode) if isinstance(target, int) else target.chmod(mode)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def open_to_others(path: Path) -> bool:
    """Return whether other users may do anything with a file or folder, by its mode. Raises OSError."""
    return bool(path.lstat().st_mode & 0o077)


def sync(descriptor: int) -> None:
    """Sync an open file or folder; some file systems cannot sync folders, and that is no failure. Raises OSError."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def is_shared(folder: Path, table: Path = Path("/proc/self/mountinfo")) -> bool:
    """Whether `folder` lies on a network's file system, or on one of FUSE, which mostly is one; False where that cannot be known."""
    where = os.path.realpath(folder)
    best, kind = "", ""
    try:
        lines = table.read_text(errors="surrogateescape").splitlines()
    except OSError:  # no Linux
        return False
    for line in lines:  # proc(5): … mount point (5th) … - type source options
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        if len(point) >= len(best) and (where == point or where.startswith(point.rstrip("/") + "/")):
            best, kind = point, after.split()[0]
    return _SHARED.fullmatch(kind) is not None
