"""Locations of the user's files: under SOFTPROMPT_HOME if set, otherwise in the platform's data and cache folders."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from pathlib import Path

import platformdirs

from softprompt.errors import HomeError
from softprompt.system.filesystems import is_open_to_others, set_mode

APP_NAME = "softprompt-tui"
HOME_VARIABLE = "SOFTPROMPT_HOME"
INDEX_NAME = re.compile(r"(library-[0-9a-f]{16})\.(\d{1,9})\.sqlite(?:-wal|-shm|-journal)?")  # all files of an index


def data_folder() -> Path:
    """Return the folder for the library and all other files that must not be lost."""
    return _home_subfolder("data") or Path(platformdirs.user_data_dir(APP_NAME, appauthor=False))


def cache_folder() -> Path:
    """Return the folder for files that can be rebuilt."""
    return _home_subfolder("cache") or Path(platformdirs.user_cache_dir(APP_NAME, appauthor=False))


def local_cache_folder() -> Path:
    """Return the cache folder to use if hosts share `cache_folder`.

    Another user may have created it, so check it with `find_privacy_problem`.
    """
    return Path(f"/var/tmp/{APP_NAME}-{os.geteuid()}")


def free_cache(near: Path) -> bool:
    """Delete the library indexes on the same file system as `near`. Return whether there were any.

    Each index is replaced with an empty one that has the next number. SQLite finds a database's companion files by
    name, so a program that still has the old index open would mistake a new index of the same name for its own.
    """
    freed = False
    for folder in (cache_folder(), local_cache_folder()):
        try:
            if folder.stat().st_dev != near.stat().st_dev or (
                folder == local_cache_folder() and find_privacy_problem(folder)
            ):
                continue
            names = sorted(path.name for path in folder.iterdir())  # a database sorts before its companion files
            matches = [match for match in map(INDEX_NAME.fullmatch, names) if match]
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


def expand_path(path: Path | str) -> Path:
    """Return a path that a user typed, with `~` expanded if it names a user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user
        return Path(path)


def display_path(path: Path) -> str:
    """Return a path for display, with `~` for the user's home."""
    with suppress(RuntimeError, ValueError):  # there is no home, or the path is not in it
        return str("~" / path.relative_to(Path.home()))
    return str(path)


def _home_subfolder(part: str) -> Path | None:
    home = os.environ.get(HOME_VARIABLE)
    if not home:
        return None
    try:
        return Path(home).expanduser().absolute() / part
    except RuntimeError as error:
        raise HomeError(f"{HOME_VARIABLE} is {home!r}, which names an unknown user. Set it to a folder.") from error


def how_to_move(folder: Path, fix: str = "another folder") -> str:
    """Return advice for a folder that cannot be used: the variable that chose it or, if a caller did, the folder."""
    with suppress(HomeError):
        if folder.is_relative_to(data_folder()):
            return f"set {HOME_VARIABLE} to {fix}"
    return f"use {fix}"


def find_privacy_problem(folder: Path) -> str:
    """Return why a folder is not private to this user, or "". Raises OSError."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return "is a link or not a folder"
    if status.st_uid != os.geteuid():
        return "belongs to another user"
    return "is open to other users (chmod 700 closes it)" if is_open_to_others(folder) else ""


def make_folder(folder: Path) -> Path:
    """Create a folder and any missing parents, private regardless of the umask.

    Raises:
        HomeError: the folder cannot be created, or another user put a link in its place.
    """
    try:
        for part in [*reversed(folder.parents), folder]:
            if not part.exists():
                with suppress(FileExistsError):  # another process was faster
                    part.mkdir(mode=0o700)
                    set_mode(part, 0o700)
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is not a folder")
        if folder.is_symlink() and folder.lstat().st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "it is another user's link")
    except OSError as error:
        advice = how_to_move(folder, "a folder that you can write to")
        raise HomeError(f"cannot create {folder}: {error.strerror}. Fix this folder, or {advice}.") from error
    return folder
