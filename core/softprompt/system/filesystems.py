"""Differences between file systems: some lack modes, folder syncing, or locks that work across hosts."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

# errors that mean "unsupported"; FUSE, vfat, CIFS, 9p and DrvFs all differ
UNSUPPORTED_ERRNOS = (errno.ENOSYS, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)

MOUNTS = Path("/proc/self/mountinfo")
_SHARED = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|beegfs|glusterfs|ocfs2|gfs2?|panfs|pvfs2|orangefs|wekafs|fuse\..+|fuse"
)


def set_mode(target: Path | int, mode: int) -> None:
    """Set the mode of a path or descriptor if its file system has modes.

    Otherwise the mount options decide who has access, and raising an error would make saving there impossible.
    `is_open_to_others` reports the access that a mount gives.
    """
    try:
        os.fchmod(target, mode) if isinstance(target, int) else target.chmod(mode)
    except OSError as error:
        if error.errno not in UNSUPPORTED_ERRNOS:
            raise


def is_open_to_others(path: Path) -> bool:
    """Return whether the mode of a file or folder gives other users any access. Raises OSError."""
    return bool(path.lstat().st_mode & 0o077)


def sync(descriptor: int) -> None:
    """Sync an open file or folder. Raises OSError, except where the file system does not support syncing."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED_ERRNOS:
            raise


def is_shared(folder: Path, table: Path = MOUNTS) -> bool:
    """Return whether `folder` is on a network file system, or on FUSE, which usually is one, or False if unknown."""
    return _SHARED.fullmatch(file_system(folder, table)) is not None


def file_system(folder: Path, table: Path = MOUNTS) -> str:
    """Return the type of the file system that `folder` is on, such as "ext4" or "nfs4", or "" if unknown."""
    real = os.path.realpath(folder)
    best, fs_type = "", ""
    try:
        lines = table.read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return ""
    for line in lines:  # proc(5): … mount point (5th) … - type source options
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
            best, fs_type = point, after.split()[0]
    return fs_type
