"""The standard streams, made safe once: one that is closed, broken, full, or whose encoding lacks characters.

A command does its work to the end whatever becomes of its output. A closed stream counts as /dev/null. A reader that
goes away is no failure. Output that is lost otherwise, as on a full disk, makes the exit code 1, with one line.
"""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click

from softprompt.errors import HomeError, PromptError, check_text
from softprompt.worker.log import PROGRAM, log_file

TERMINAL_CHUNK = 256  # bytes
POLL_SECONDS = 0.1
MAX_INPUT_LENGTH = 1 << 20  # bytes; no prompt or note is that long, and standard input may never end
STDIN, STDOUT, STDERR = 0, 1, 2
NEAREST = "softprompt-nearest"  # the name of the error handler that replaces what an encoding lacks
_LOOKALIKES = str.maketrans(
    "─━│┃┄┈┌┐└┘├┤┬┴┼╭╮╰╯═║╔╗╚╝╸╺…·•–—‘’“”←→↑↓",
    "--||--+++++++++++++=|++++--..*--''\"\"<>^v",
)


class Output(io.RawIOBase):
    """A standard stream that never raises: once a write fails, all further output is dropped and `failure` says why."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def move_to(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: object) -> int:
        with memoryview(data) as view:  # type: ignore[arg-type]  # typeshed has no public name for a buffer
            written = 0
            while written < view.nbytes and self.failure is None:
                try:
                    if (
                        self.isatty()
                    ):  # which takes so much, once it takes any: no write waits where `end_soon` is not seen
                        self._wait()
                        written += os.write(self._descriptor, view[written : written + TERMINAL_CHUNK])
                    else:
                        written += os.write(self._descriptor, view[written:])
                except BlockingIOError:  # another program made the terminal or pipe that we share non-blocking
                    self._wait()
                except OSError as error:
                    self.failure = error
            return view.nbytes

    def _wait(self) -> None:
        """Wait until something can be written. Raises TimeoutError if nothing can, and the program is to end."""
        while not select.select([], [self._descriptor], [], POLL_SECONDS)[1]:
            if _is_ending:
                raise TimeoutError(errno.ETIMEDOUT, "it takes no more output")


_outputs: dict[int, Output] = {}
_is_ending = False
_closed: set[int] = set()


def prepare() -> None:
    """Make the standard streams safe. Call it before any file is opened, which could get a closed stream's number."""
    codecs.register_error(NEAREST, _nearest)
    for descriptor in (STDIN, STDOUT, STDERR):
        if _is_closed(descriptor):
            _closed.add(descriptor)
            _open_null(descriptor)
    if sys.stdin is None:
        sys.stdin = open(STDIN, closefd=False)  # noqa: SIM115  # it lives as long as the process
    for name, descriptor in (("stdout", STDOUT), ("stderr", STDERR)):
        stream = getattr(sys, name)
        if stream is None or (stream is getattr(sys, f"__{name}__") and descriptor not in _outputs):
            setattr(sys, name, _safe(stream, descriptor))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=NEAREST)


def end_soon() -> None:
    """Wait no longer for a terminal or pipe that takes no output: the program has been told to end."""
    global _is_ending
    _is_ending = True


@contextmanager
def native_errors_logged() -> Iterator[None]:
    """Send what compiled libraries write to standard error to the log; this program's own lines go where they went."""
    output = _outputs.get(STDERR)
    if output is None:
        yield
        return
    try:
        log = log_file(PROGRAM)
    except (HomeError, OSError):
        log = Path(os.devnull).open("ab")  # noqa: SIM115
    elsewhere = os.dup(STDERR)
    output.move_to(elsewhere)
    with log:
        os.dup2(log.fileno(), STDERR)
    try:
        yield
    finally:
        os.dup2(elsewhere, STDERR)
        output.move_to(STDERR)
        os.close(elsewhere)


def output_failure() -> OSError | None:
    """Return why standard output cannot be written any more, or None."""
    output = _outputs.get(STDOUT)
    return output.failure if output else None


def is_reader_gone(failure: OSError) -> bool:
    return failure.errno == errno.EPIPE


def standard_input(holding: str) -> BinaryIO:
    """Return standard input, which is to hold e.g. "a prompt". Raises UsageError where it is closed."""
    if STDIN in _closed or sys.stdin is None:
        raise click.UsageError(f"standard input is closed, so there is no {holding} in it")
    return sys.stdin.buffer


def read_text(what: str, most: int) -> str:
    """Return standard input as text. Raises PromptError for more than `most` bytes, and for what is no UTF-8."""
    stream = standard_input(what)
    raw = b""
    try:
        while len(raw) <= most and (piece := stream.read(most + 1 - len(raw))):
            raw += piece
    except OSError as error:
        raise PromptError(f"standard input cannot be read: {error.strerror}") from error
    if len(raw) > most:
        raise PromptError(f"standard input has more than {most:,} bytes, the most that a {what} can have: shorten it")
    return check_text(what, raw.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape").strip())


def _is_closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False


def _open_null(descriptor: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY if descriptor == STDIN else os.O_WRONLY)
    if null == descriptor:
        os.set_inheritable(null, True)
    else:
        os.dup2(null, descriptor)
        os.close(null)


def _safe(stream: io.TextIOWrapper | None, descriptor: int) -> io.TextIOWrapper:
    output = _outputs[descriptor] = Output(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding if stream else "utf-8",
        errors=NEAREST,
        line_buffering=descriptor == STDERR or output.isatty(),
    )


def _nearest(error: UnicodeError) -> tuple[str, int]:
    """Replace characters that an encoding lacks by ones that look alike, or by as many question marks as they are wide."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_replacement, error.object[error.start : error.end])), error.end


def _replacement(char: str) -> str:
    alike = char.translate(_LOOKALIKES)
    if alike.isascii():
        return alike
    if "\u2800" <= char <= "\u28ff":  # braille, of which curves are drawn
        return " " if char == "\u2800" else "*"
    if "\u2580" <= char <= "\u259f":  # blocks
        return "#"
    if unicodedata.combining(char):
        return ""
    return "??" if unicodedata.east_asian_width(char) in "WF" else "?"
