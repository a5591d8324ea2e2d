"""Where a user's files are: under SOFTPROMPT_HOME if that is set, else where the platform keeps data and caches."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import platformdirs

from softprompt.errors import HomeError
from softprompt.system.filesystems import open_to_others, set_mode

APP = "softprompt-tui"
VARIABLE = "SOFTPROMPT_HOME"
INDEX = re.compile(r"(library-[0-9a-f]{16})\.(\d{1,9})\.sqlite(?:-wal|-shm|-journal)?")  # the files of all indexes


def data_folder() -> Path:
    """The library and everything else that must not be lost."""
    return _under("data") or Path(platformdirs.user_data_dir(APP, appauthor=False))


def cache_folder() -> Path:
    """What can be made again."""
    return _under("cache") or Path(platformdirs.user_cache_dir(APP, appauthor=False))


def local_cache_folder() -> Path:
    """Stands in for the cache folder where that is shared by hosts. Anyone could have made it: see `why_not_ours`."""
    return Path(f"/var/tmp/{APP}-{os.geteuid()}")


def free_cache(near: Path) -> bool:
    """Delete the libraries' indexes, which can be made again, on the file system of `near`; return whether there were any.

    Each leaves an empty one of the next number: SQLite finds the files beside a database by name, so that a program
    that still has the old one open would take a new one of the same name for its own.
    """
    freed = False
    for folder in (cache_folder(), local_cache_folder()):
        try:
            if folder.stat().st_dev != near.stat().st_dev or (folder == local_cache_folder() and why_not_ours(folder)):
                continue
            names = sorted(path.name for path in folder.iterdir())  # a database before what belongs to it
            matches = [match for match in map(INDEX.fullmatch, names) if match]
            sizes = [(folder / match[0]).lstat().st_size for match in matches]
        except OSError:
            continue
        highest: dict[str, int] = {}
        for match in matches if any(sizes) else ():
            highest[match[1]] = max(highest.get(match[1], 0), int(match[2]))
            with suppress(OSError):
                (folder / match[0]).unlink()
                freed = True
        for library, number in highest.items():
            with suppress(OSError):
                (folder / f"{library}.{number + 1}.sqlite").touch(mode=0o600, exist_ok=False)
    return freed


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
    return "is open to other users (chmod 700 closes it)" if open_to_others(folder) else ""


def make_folder(folder: Path) -> Path:
    """Creates a folder where there is none, and those above it, private whatever the umask; raises HomeError saying what to do.

    A link that another user made in its place is refused.
    """
    try:
        for part in [*reversed(folder.parents), folder]:
            if not part.exists():
                with suppress(FileExistsError):  # another process was quicker
                    part.mkdir(mode=0o700)
                    set_mode(part, 0o700)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder")
        if folder.is_symlink() and folder.lstat().st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "it is a link that another user made")
    except OSError as error:
        raise HomeError(
            f"{folder} cannot be created ({error.strerror}): set {VARIABLE} to a folder that you can write to, or free this one"
        ) from error
    return folder
