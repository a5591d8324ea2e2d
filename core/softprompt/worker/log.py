"""The worker's log: one file that rotates, and the only place that the process's standard streams lead to."""

from __future__ import annotations

import logging
import os
import re
import socket
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO

from softprompt.home import cache_folder, make_folder
from softprompt.mounts import set_mode

SIZE, KEPT = 1_000_000, 3  # bytes of a file; older files


def log_path() -> Path:
    """This host's log: a home may be shared."""
    return cache_folder() / f"worker-{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())}.log"


def log_file() -> BinaryIO:
    """The log, opened to be added to by a process that does not keep it. Raises HomeError, OSError."""
    make_folder(log_path().parent)
    descriptor = os.open(log_path(), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "ab")


class StreamsFollow(RotatingFileHandler):
    """A rotating log that standard output and error lead into: what a C library prints must not reach a terminal."""

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        super().__init__(path, maxBytes=SIZE, backupCount=KEPT, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))
        self._lead()

    def doRollover(self) -> None:
        super().doRollover()
        self._lead()

    def format(self, record: logging.LogRecord) -> str:
        """One line a record but for tracebacks, and nothing in it that could steer a terminal."""
        return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in super().format(record))

    def _lead(self) -> None:
        assert self.stream is not None
        descriptor = self.stream.fileno()
        set_mode(descriptor, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)


def begin() -> None:
    """Logs to `log_path()` from now on, and lets the standard streams go."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    logging.basicConfig(level=logging.INFO, handlers=[StreamsFollow(log_path())], force=True)
    logging.captureWarnings(True)
