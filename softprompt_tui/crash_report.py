"""Crash reports: private files with the traceback of an unexpected error. The terminal never shows it."""

from __future__ import annotations

import os
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from softprompt.errors import SoftPromptError
from softprompt.system.files import write_new
from softprompt.system.paths import cache_folder, make_folder

FOLDER, PREFIX = "reports", "crash-"
MAX_REPORTS = 20
MAX_BYTES = 1 << 20


def write_report(error: BaseException) -> Path | None:
    """Write a crash report to a new private file.

    The file is in the cache folder, or in the temporary folder if that fails. It contains no prompts: the command line
    is reduced to the command and the names of its options.

    Returns:
        The path of the file, or None if it could not be written.
    """
    name = f"{PREFIX}{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}.txt"
    data = _format_report(error).encode("utf-8", "backslashreplace")[:MAX_BYTES]
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


def report_crash(error: BaseException) -> str:
    """Write a report and return a one-line message for the user."""
    path = write_report(error)
    lines = str(error).strip().splitlines()
    summary = f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
    if path is None:
        return f"an error in softprompt-tui itself: {summary}. Please report it. The crash report could not be written."
    return f"an error in softprompt-tui itself: {summary}. Please report it with the file {path}"


def _format_report(error: BaseException) -> str:
    import platform  # takes 3 ms, and metadata 8 ms, so they are only imported for a report
    from importlib.metadata import version

    facts = {
        "version": version("softprompt-tui"),
        "python": sys.version.replace("\n", " "),
        "platform": platform.platform(),
        "time": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "process": str(os.getpid()),
        "command": " ".join(_strip_values(sys.argv[1:])),
    }
    head = "".join(f"{key}: {value}\n" for key, value in facts.items())
    return head + "\n" + "".join(traceback.format_exception(error))


def _strip_values(arguments: Iterable[str]) -> Iterable[str]:
    """Yield the command and the names of the options. Other arguments may be private."""
    for i, argument in enumerate(arguments):
        if i == 0 or argument.startswith("-"):
            yield argument.partition("=")[0][:40]
