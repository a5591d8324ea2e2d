"""What kind of file system a folder lies on: SQLite's locks and shared memory do not work on one that is shared by hosts."""

from __future__ import annotations

import os
import re
from pathlib import Path

_SHARED = re.compile(
    r"nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|gpfs|beegfs|glusterfs|ocfs2|gfs2?|panfs|pvfs2|orangefs|wekafs|fuse\..+|fuse"
)


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
