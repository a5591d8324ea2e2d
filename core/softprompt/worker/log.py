"""The logs, one for the worker and one for the commands and the interface. What libraries say goes nowhere else."""

from __future__ import annotations

import logging
import os
import re
import socket
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import BinaryIO

from softprompt.system.filesystems import set_mode
from softprompt.system.paths import cache_folder, make_folder

SIZE, KEPT = 1_000_000, 3  # bytes of a file; older files
WORKER, PROGRAM = "worker", "softprompt-tui"
# progress bars that libraries would draw on standard error, with names from the hub in them
WITHOUT_BARS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


def log_path(of: str = WORKER) -> Path:
    """This host's log: a home may be shared."""
    return cache_folder() / f"{of}-{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())}.log"


def log_file(of: str = WORKER) -> BinaryIO:
    """The log, opened to be added to by a process that does not keep it. Raises HomeError, OSError."""
    make_folder(log_path(of).parent)
    return os.fdopen(_opened(str(log_path(of)), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


class Log(RotatingFileHandler):
    """A private rotating file, made with its first line. Where it cannot be written, nothing is said of it."""

    def __init__(self, of: str) -> None:
        super().__init__(log_path(of), "a", SIZE, KEPT, encoding="utf-8", delay=True, errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))

    def _open(self) -> TextIOWrapper:
        make_folder(Path(self.baseFilename).parent)
        descriptor = _opened(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), self.encoding, self.errors)

    def format(self, record: logging.LogRecord) -> str:
        """One line a record but for tracebacks, and nothing in it that could steer a terminal."""
        text = super().format(record)
        return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk or a home that cannot be written to must not put a traceback on the terminal."""


class StreamsFollow(Log):
    """A log that standard output and error lead into: what a C library prints must not reach a terminal."""

    def __init__(self) -> None:
        super().__init__(WORKER)
        self._lead()

    def doRollover(self) -> None:
        super().doRollover()
        self._lead()

    def _lead(self) -> None:
        self.stream = self.stream or self._open()
        descriptor = self.stream.fileno()
        set_mode(descriptor, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)


class NoHandlers(logging.Logger):
    """A logger that keeps no handler and passes everything on to the root's.

    transformers, huggingface_hub and torch each give their loggers a handler that writes to standard error.
    """

    @property
    def propagate(self) -> bool:
        return True

    @propagate.setter
    def propagate(self, value: bool) -> None:
        pass

    def addHandler(self, hdlr: logging.Handler) -> None:
        pass


def collect(*handlers: logging.Handler, level: int = logging.WARNING) -> None:
    """Send all log lines and warnings of this process to `handlers` and nowhere else: for a program's first lines."""
    logging.setLoggerClass(NoHandlers)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):  # made before this: by an import
            logger.handlers.clear()
            logger.propagate = True
    for handler in handlers:
        handler.setLevel(level)  # of loggers with a lower level of their own too
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.captureWarnings(True)
    os.environ.update(WITHOUT_BARS)


def begin() -> None:
    """Begin the worker's log, and let the standard streams go."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    collect(StreamsFollow(), level=logging.INFO)
