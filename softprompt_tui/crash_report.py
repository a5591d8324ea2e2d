"""Reports of errors that nobody expected: a private file with the traceback, which the terminal never shows."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from softprompt.errors import SoftPromptError
from softprompt.system.files import write_new
from softprompt.system.paths import cache_folder, make_folder

FOLDER, PREFIX = "reports", "crash-"
MAX_REPORTS = 20
MAX_BYTES = 1 << 20


def write_report(error: BaseException) -> Path | None:
    """Write what went wrong into a new private file and return its path; None where no file can be written.

    The report lies in the cache folder, or among the temporary files where that cannot be used. It holds no prompts:
    of the command line only the command and the names of its options.
    """
    name = f"{PREFIX}{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.txt"
    data = _text(error).encode("utf-8", "backslashreplace")[:MAX_BYTES]
    with suppress(OSError, SoftPromptError):
        folder = make_folder(cache_folder() / FOLDER)
        write_new(folder / name, data)
        for old in sorted(folder.glob(f"{PREFIX}*.txt"))[:-MAX_REPORTS]:
            old.unlink(missing_ok=True)
        return folder / name
    with suppress(OSError):
        path = Path(tempfile.gettempdir()) / f"softprompt-tui-{name}"
        write_new(path, data)
        return path
    return None


def report(error: BaseException) -> str:
    """Write a report and return the one line that tells the user of it."""
    path = write_report(error)
    said = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
    if path is None:
        return f"an error in softprompt-tui itself: {what}. Please report it; no report of it could be written"
    return f"an error in softprompt-tui itself: {what}. Please report it, with the file {path}"


def _text(error: BaseException) -> str:
    import platform  # 3 ms, which no command waits for that goes well

    facts = {
        "version": version("softprompt-tui"),
        "python": sys.version.replace("\n", " "),
        "platform": platform.platform(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "process": str(os.getpid()),
        "command": " ".join(_without_values(sys.argv[1:])),
    }
    head = "".join(f"{key}: {value}\n" for key, value in facts.items())
    return head + "\n" + "".join(traceback.format_exception(error))


def _without_values(arguments: Iterable[str]) -> Iterable[str]:
    """The command and the names of the options: what else is typed may be private."""
    for i, argument in enumerate(arguments):
        if i == 0 or argument.startswith("-"):
            yield argument.partition("=")[0][:40]
