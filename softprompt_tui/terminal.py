"""Open the interface on this terminal, and restore the terminal however the interface ends."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import sys
import termios
import threading
import time
from contextlib import suppress

from softprompt.library import Library
from softprompt.system.paths import data_folder, make_folder

END_SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
END_SECONDS = 1.4  # time for the interface to end by itself
SHUTDOWN_SECONDS = 0.3  # time for Python to end its threads after that
RESTORE_SECONDS = 0.3  # time for the terminal to accept the reset sequence
WATCH_SECONDS = 0.5  # between checks that the terminal still exists
# Undo every mode that may be set: synchronized output, mouse, focus, paste and resize reports, the keyboard protocol,
# the alternate screen, no line wrapping, a hidden cursor, colors.
_RESET_SEQUENCE = (
    b"\x1b[?2026l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?1004l\x1b[?2004l\x1b[?2048l"
    b"\x1b[<u\x1b[?1049l\x1b[?7h\x1b[?25h\x1b[0m"
)
_CANCEL = b"\x18\x1b\\"  # ends an incomplete escape sequence or string
DUMB_TERMS = ("", "dumb", "unknown")  # values of TERM for terminals that cannot position text


def why_cannot_open() -> str:
    """Return the reason why the interface cannot open here, or "" if it can."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "the interface needs a terminal. Run `softprompt-tui --help` for commands that work without one."
    term = os.environ.get("TERM", "")
    if term in DUMB_TERMS:
        return (
            f"TERM is {term or 'not set'}, but the interface needs a terminal that can position text. Set TERM to your "
            "terminal's type, such as xterm-256color, or run `softprompt-tui --help` for commands that work anywhere."
        )
    return ""


def open_interface() -> int:
    """Run the interface until the user quits. Return the exit code.

    After a signal, or when the terminal disappears, the interface ends within two seconds, even if the main thread is
    blocked on a terminal that accepts no output.

    Raises:
        HomeError: the user's files cannot be read. Raised before anything is drawn.
        Exception: the interface crashed. Raised after the terminal is restored.
    """
    if not os.isatty(sys.__stderr__.fileno() if sys.__stderr__ else -1):  # Textual draws on standard error
        sys.__stderr__ = sys.__stdout__  # type: ignore[misc]
    # nothing that the start allocates becomes garbage, and looking for it takes a fifth of the time to the first paint
    gc.disable()
    from softprompt_tui.app import SoftPromptApp

    make_folder(data_folder())
    Library().revisions.check_readable()
    terminal = _Terminal(sys.stdin.fileno(), sys.__stderr__.fileno())  # type: ignore[union-attr]
    app = SoftPromptApp()
    ended = threading.Event()
    # Python writes signals to this pipe even while the main thread is blocked
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)

    def watch(loop: asyncio.AbstractEventLoop) -> None:
        while os.read(signals, 1)[0] not in END_SIGNALS:
            pass
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(app.quit_now)
        if not ended.wait(END_SECONDS):
            terminal.force_restore()
            os._exit(1)
        time.sleep(SHUTDOWN_SECONDS)
        # threads waiting for a slow disk or the worker must not keep the process alive
        os._exit(app.return_code or 0)

    async def run() -> None:
        loop = asyncio.get_running_loop()
        threading.Thread(target=watch, args=(loop,), daemon=True).start()
        for number in END_SIGNALS:
            signal.signal(number, _only_wake_up)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        watching = asyncio.create_task(_end_when_disconnected(terminal, wakeup))
        try:
            await app.run_async(mouse=not _is_in_gnu_screen())
        finally:
            watching.cancel()

    before = [(number, signal.getsignal(number)) for number in END_SIGNALS]
    try:
        asyncio.run(run())
    finally:
        terminal.restore()
        ended.set()
        signal.set_wakeup_fd(-1)
        for number, handler in before:
            signal.signal(number, handler)
    if app.crash is not None:
        raise app.crash
    return app.return_code or 0


def _only_wake_up(*_: object) -> None:
    """Do nothing, so that the signal does not end the process. `open_interface` reads it from the pipe."""


def _is_in_gnu_screen() -> bool:
    """Return whether GNU screen is between the interface and the terminal.

    With mouse reports on, screen 4.9 holds back every Esc until the next key, then sends both as Alt plus that key.
    """
    return "STY" in os.environ and os.environ.get("TERM", "").startswith("screen")


class _Terminal:
    """The terminal and the original attributes to restore."""

    def __init__(self, descriptor: int, output: int) -> None:
        self.descriptor = descriptor
        self.output = output  # the descriptor that Textual writes to
        self.attributes = termios.tcgetattr(descriptor)

    def is_connected(self) -> bool:
        try:
            termios.tcgetattr(self.descriptor)
        except termios.error:
            return False
        return True

    def restore(self) -> None:
        """Restore attributes and modes. If the terminal accepts no output, wait briefly."""
        with suppress(OSError, termios.error):
            termios.tcsetattr(self.descriptor, termios.TCSANOW, self.attributes)
        with suppress(OSError, termios.error):
            # a separate non-blocking open file, because the one shared with the shell must stay blocking
            own = os.open(os.ttyname(self.output), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                _write(own, _RESET_SEQUENCE)
            finally:
                os.close(own)

    def force_restore(self) -> None:
        """Restore the terminal even if a Textual thread is stuck writing to it. Later output goes to /dev/null."""
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            name = os.ttyname(self.output)
            os.dup2(null, self.output)
            self.output = os.open(name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.restore()


def _write(descriptor: int, data: bytes) -> None:
    """Write to a terminal. If it accepts nothing, discard its pending output and undo XOFF."""
    deadline = time.monotonic() + RESTORE_SECONDS
    flush_at = time.monotonic() + RESTORE_SECONDS / 2
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            now = time.monotonic()
            if now > deadline:
                return
            if now > flush_at and not data.startswith(_CANCEL):
                data = _CANCEL + _RESET_SEQUENCE
            if now > flush_at:
                termios.tcflush(descriptor, termios.TCOFLUSH)
                termios.tcflow(descriptor, termios.TCOOFF)  # without this, TCOON does not undo XOFF
                termios.tcflow(descriptor, termios.TCOON)
            select.select([], [descriptor], [], 0.01)


async def _end_when_disconnected(terminal: _Terminal, wakeup: int) -> None:
    """End the interface when the terminal disappears. Not every terminal sends SIGHUP."""
    while terminal.is_connected():
        await asyncio.sleep(WATCH_SECONDS)
    os.write(wakeup, bytes([signal.SIGHUP]))
