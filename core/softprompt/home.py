"""Where a user's files are: under SOFTPROMPT_HOME if that is set, else where the platform keeps data and caches."""

from __future__ import annotations

import os
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


def make_folder(folder: Path) -> Path:
    """Creates a private folder where there is none; raises HomeError saying what to do."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise HomeError(
            f"{folder} cannot be created ({error.strerror}): set {VARIABLE} to a folder that you can write to, or free this one"
        ) from error
    return folder
