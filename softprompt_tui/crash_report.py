"""Reports of errors that nobody expected: a private file with the traceback, which the terminal never shows."""

from __future__ import annotations

import secrets
import time
import traceback

from softprompt.errors import SoftPromptError
from softprompt.files import write_new
from softprompt.home import cache_folder, make_folder


def report(error: BaseException) -> str:
    """Write the traceback into a new private file and return the one line that tells the user of it."""
    what = f"an error in softprompt-tui itself: {type(error).__name__}: {str(error)[:200]}. Please report it"
    name = f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.txt"
    data = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace")
    try:
        path = make_folder(cache_folder() / "reports") / name
        write_new(path, data)
    except (OSError, SoftPromptError):
        return f"{what}; no report of it could be written"
    return f"{what}, with the file {path}"
