"""The log files, one for the worker and one for the commands and the app. Libraries can log only to these files."""

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

MAX_LOG_BYTES, OLD_LOGS = 1_000_000, 3  # size of a log file; number of rotated files
WORKER, PROGRAM = "worker", "softprompt-tui"
# otherwise libraries draw progress bars on standard error, containing unescaped names from the hub
NO_PROGRESS_BARS = {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}


def log_path(program: str = WORKER) -> Path:
    """Return the path of a program's log. Each host has its own, because several hosts may share a home."""
    return cache_folder() / f"{program}-{re.sub(r'[^A-Za-z0-9.-]', '-', socket.gethostname())}.log"


def open_log_file(program: str = WORKER) -> BinaryIO:
    """Open the log for appending raw bytes, without rotation. Raises HomeError or OSError."""
    make_folder(log_path(program).parent)
    return os.fdopen(_open_private(str(log_path(program)), os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)


class Log(RotatingFileHandler):
    """A private log file that rotates. The first line creates it, and write errors are ignored."""

    def __init__(self, program: str) -> None:
        super().__init__(
            log_path(program), "a", MAX_LOG_BYTES, OLD_LOGS, encoding="utf-8", delay=True, errors="backslashreplace"
        )
        self.setFormatter(logging.Formatter("%(asctime)s %(process)d %(levelname)s %(message)s"))

    def _open(self) -> TextIOWrapper:
        make_folder(Path(self.baseFilename).parent)
        descriptor = _open_private(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), self.encoding, self.errors)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record and its traceback, if any. Escape all control characters except line breaks."""
        text = super().format(record)
        return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)

    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore the error. A full disk or a read-only home must not print tracebacks to the terminal."""


class StreamLog(Log):
    """The worker's log. It also captures standard output and error, so that no C library prints to a terminal."""

    def __init__(self) -> None:
        super().__init__(WORKER)
        self._redirect_streams()

    def doRollover(self) -> None:
        super().doRollover()
        self._redirect_streams()

    def _redirect_streams(self) -> None:
        self.stream = self.stream or self._open()
        descriptor = self.stream.fileno()
        set_mode(descriptor, 0o600)
        for standard in (1, 2):
            os.dup2(descriptor, standard)


class HandlerlessLogger(logging.Logger):
    """A logger that never has handlers of its own, so that every record goes to the root logger's handlers.

    transformers, huggingface_hub and torch would otherwise install handlers that write to standard error.
    """

    @property
    def propagate(self) -> bool:
        return True

    @propagate.setter
    def propagate(self, value: bool) -> None:
        pass

    def addHandler(self, hdlr: logging.Handler) -> None:
        pass


def redirect_logging(*handlers: logging.Handler, level: int = logging.WARNING) -> None:
    """Send all log lines and warnings of this process to `handlers` and nowhere else. Call this at program start."""
    logging.setLoggerClass(HandlerlessLogger)
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):  # created by an earlier import
            logger.handlers.clear()
            logger.propagate = True
    for handler in handlers:
        handler.setLevel(level)  # because some loggers set a lower level for themselves
    logging.basicConfig(level=level, handlers=handlers, force=True)
    logging.captureWarnings(True)
    os.environ.update(NO_PROGRESS_BARS)


def start_worker_log() -> None:
    """Start the worker's log and detach the process from its standard streams."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    redirect_logging(StreamLog(), level=logging.INFO)
