"""Make the standard streams safe even if they are closed, broken or full, or cannot encode some characters.

A command finishes its work whatever happens to its output. A closed stream behaves like /dev/null. It is
not an error if the reader goes away. If output is lost for any other reason, such as a full disk, the command prints
one line and exits with code 1.
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
from softprompt.worker.log import PROGRAM, open_log_file

TERMINAL_CHUNK = 256  # bytes
POLL_SECONDS = 0.1
MAX_INPUT_BYTES = 1 << 20  # larger than any prompt or note, because standard input may be endless
STDIN, STDOUT, STDERR = 0, 1, 2
NEAREST = "softprompt-nearest"  # name of the codec error handler that replaces unencodable characters
_LOOKALIKES = str.maketrans(
    "─━│┃┄┈┌┐└┘├┤┬┴┼╭╮╰╯═║╔╗╚╝╸╺…·•–—‘’“”←→↑↓",
    "--||--+++++++++++++=|++++--..*--''\"\"<>^v",
)


class Output(io.RawIOBase):
    """A standard stream that never raises. After a failed write it drops all output; `failure` holds the error."""

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
                    if self.isatty():
                        # a ready terminal accepts a whole chunk, so the write cannot block and miss `end_soon`
                        self._wait()
                        written += os.write(self._descriptor, view[written : written + TERMINAL_CHUNK])
                    else:
                        written += os.write(self._descriptor, view[written:])
                except BlockingIOError:  # another program set the shared terminal or pipe to non-blocking
                    self._wait()
                except OSError as error:
                    self.failure = error
            return view.nbytes

    def _wait(self) -> None:
        """Wait until the stream accepts output. Raises TimeoutError if it stays blocked while the program is ending."""
        while not select.select([], [self._descriptor], [], POLL_SECONDS)[1]:
            if _is_ending:
                raise TimeoutError(errno.ETIMEDOUT, "the stream accepts no more output")


_outputs: dict[int, Output] = {}
_is_ending = False
_closed: set[int] = set()


def prepare() -> None:
    """Make the standard streams safe. Call this before opening files: one could get a closed stream's descriptor."""
    codecs.register_error(NEAREST, _replace_unencodable)
    for descriptor in (STDIN, STDOUT, STDERR):
        if _is_closed(descriptor):
            _closed.add(descriptor)
            _open_null(descriptor)
    if sys.stdin is None:
        sys.stdin = open(STDIN, closefd=False)  # noqa: SIM115  # stays open until the process ends
    for name, descriptor in (("stdout", STDOUT), ("stderr", STDERR)):
        stream = getattr(sys, name)
        if stream is None or (stream is getattr(sys, f"__{name}__") and descriptor not in _outputs):
            setattr(sys, name, _wrap(stream, descriptor))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=NEAREST)


def end_soon() -> None:
    """Stop waiting for streams that accept no output, because the program is ending."""
    global _is_ending
    _is_ending = True


@contextmanager
def native_errors_logged() -> Iterator[None]:
    """Redirect what compiled libraries write to stderr into the log. This program's own messages still appear."""
    output = _outputs.get(STDERR)
    if output is None:
        yield
        return
    try:
        log = open_log_file(PROGRAM)
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
    """Return the error that broke standard output, or None."""
    output = _outputs.get(STDOUT)
    return output.failure if output else None


def is_reader_gone(failure: OSError) -> bool:
    return failure.errno == errno.EPIPE


def has_lost_reader() -> bool:
    """Return whether the program that read standard output has ended, even if nothing was written since then."""
    output = _outputs.get(STDOUT)
    if output is None:
        return False
    poll = select.poll()
    poll.register(output.fileno(), 0)  # errors and hang-ups are always reported
    return bool(poll.poll(0))


def standard_input(holding: str) -> BinaryIO:
    """Return standard input as bytes. Raises UsageError if it is closed; the message says that `holding` is missing."""
    if STDIN in _closed or sys.stdin is None:
        raise click.UsageError(f"standard input is closed, so there is no {holding} to read")
    return sys.stdin.buffer


def read_text(what: str, max_bytes: int) -> str:
    """Read standard input as text. Raises PromptError for more than `max_bytes`, and for text that is not UTF-8."""
    stream = standard_input(what)
    raw = b""
    try:
        while len(raw) <= max_bytes and (chunk := stream.read(max_bytes + 1 - len(raw))):
            raw += chunk
    except OSError as error:
        raise PromptError(f"cannot read standard input: {error.strerror}") from error
    if len(raw) > max_bytes:
        raise PromptError(f"standard input has more than {max_bytes:,} bytes, the limit for a {what}. Shorten it.")
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


def _wrap(stream: io.TextIOWrapper | None, descriptor: int) -> io.TextIOWrapper:
    output = _outputs[descriptor] = Output(descriptor)
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding if stream else "utf-8",
        errors=NEAREST,
        line_buffering=descriptor == STDERR or output.isatty(),
    )


def _replace_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Replace unencodable characters with look-alikes, or with one question mark per column."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_replacement, error.object[error.start : error.end])), error.end


def _replacement(char: str) -> str:
    alike = char.translate(_LOOKALIKES)
    if alike.isascii():
        return alike
    if "\u2800" <= char <= "\u28ff":  # braille, used for curves
        return " " if char == "\u2800" else "*"
    if "\u2580" <= char <= "\u259f":  # blocks
        return "#"
    if unicodedata.combining(char):
        return ""
    return "??" if unicodedata.east_asian_width(char) in "WF" else "?"
