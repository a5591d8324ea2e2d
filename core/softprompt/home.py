"""Where a user's files are: under SOFTPROMPT_HOME if that is set, else where the platform keeps data and caches."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import platformdirs

from softprompt.errors import HomeError

APP = "softprompt-tui"
VARIABLE = "SOFTPROMPT_HOME"


def data_folder() -> Path:
    """The library and everything else that must not be lost."""
    return _under("data") or Path(platformdirs.user_data_dir(APP, appauthor=False))


def cache_folder() -> Path:
    """What can be made again."""
    return _under("cache") or Path(platformdirs.user_cache_dir(APP, appauthor=False))


def _under(part: str) -> Path | None:
    home = os.environ.get(VARIABLE)
    if not home:
        return None
    try:
        return Path(home).expanduser().absolute() / part
    except RuntimeError as error:
        raise HomeError(f"{VARIABLE} is {home!r}, and there is no such user: set it to a folder") from error


def why_not_ours(folder: Path) -> str:
    """What is wrong with a folder that is to be ours alone, "" where nothing is. Raises OSError."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return "is a link, or no folder"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    return "is open to other users (chmod 700 closes it)" if found.st_mode & 0o077 else ""


def make_folder(folder: Path) -> Path:
    """Creates a folder where there is none, and those above it, private whatever the umask; raises HomeError saying what to do.

    A link that another user made in its place is refused.
    """
    try:
        for part in [*reversed(folder.parents), folder]:
            if not part.exists():
                with suppress(FileExistsError):  # another process was quicker
                    part.mkdir(mode=0o700)
                    part.chmod(0o700)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder")
        if folder.is_symlink() and folder.lstat().st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "it is a link that another user made")
    except OSError as error:
        raise HomeError(
            f"{folder} cannot be created ({error.strerror}): set {VARIABLE} to a folder that you can write to, or free this one"
        ) from error
    return folder
