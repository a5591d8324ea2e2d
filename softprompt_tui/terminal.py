"""Opening the interface on this terminal, and leaving it as it was, however it ends."""

from __future__ import annotations

import asyncio
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

ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
ENDS_WITHIN = 1.4  # seconds for the interface to end by itself
SHUTS_DOWN_WITHIN = 0.3  # seconds for Python to end its threads after that
PUT_BACK_WITHIN = 0.3  # seconds for a terminal to take what puts it back
WATCH_EVERY = 0.5  # seconds between looks whether the terminal is still there
# what a terminal may have been told: synchronized output, mouse, focus, paste, resize reports, the keyboard protocol, the
# alternate screen, no line wrapping, a hidden cursor, colours
_RESET = (
    b"\x1b[?2026l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1016l\x1b[?1004l\x1b[?2004l\x1b[?2048l"
    b"\x1b[<u\x1b[?1049l\x1b[?7h\x1b[?25h\x1b[0m"
)
_CANCEL = b"\x18\x1b\\"  # ends a sequence and a string that were cut
DUMB = ("", "dumb", "unknown")  # what TERM is where nothing can be placed on the screen


def cannot_open() -> str:
    """Why the interface cannot be opened here, "" where it can."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return "the interface needs a terminal; `softprompt-tui --help` lists the commands that do not"
    term = os.environ.get("TERM", "")
    if term in DUMB:
        return (
            f"the interface needs a terminal that can place text, and TERM is {term or 'not set'}: set it to what yours is, such as "
            "xterm-256color; `softprompt-tui --help` lists the commands that need none"
        )
    return ""


def open_interface() -> int:
    """Runs the interface until it is left; returns the exit code. On a signal or a vanished terminal it ends within two seconds,
    also while the terminal takes no output and the main thread waits for that.

    Raises HomeError, before anything is drawn, where the user's files cannot be read, and what ended the interface, once
    the terminal is as it was before.
    """
    if not os.isatty(sys.__stderr__.fileno() if sys.__stderr__ else -1):  # Textual draws there
        sys.__stderr__ = sys.__stdout__  # type: ignore[misc]
    from softprompt_tui.app import SoftPromptApp

    make_folder(data_folder())
    Library().revisions.check_readable()
    terminal = _Terminal(sys.stdin.fileno(), sys.__stderr__.fileno())  # type: ignore[union-attr]
    app = SoftPromptApp()
    ended = threading.Event()
    # a signal is written here by Python itself, whatever the main thread waits for
    signals, wakeup = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(wakeup, False)

    def watch(loop: asyncio.AbstractEventLoop) -> None:
        while os.read(signals, 1)[0] not in ENDING:
            pass
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(app.quit_now)
        if not ended.wait(ENDS_WITHIN):
            terminal.give_up()
            os._exit(1)
        time.sleep(SHUTS_DOWN_WITHIN)
        os._exit(app.return_code or 0)  # a thread that waits for a slow disk or the worker must not hold the process

    async def run() -> None:
        loop = asyncio.get_running_loop()
        threading.Thread(target=watch, args=(loop,), daemon=True).start()
        for number in ENDING:
            signal.signal(number, _only_wake_up)
        signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
        watching = asyncio.create_task(_until_gone(terminal, wakeup))
        try:
            await app.run_async(mouse=not _is_in_gnu_screen())
        finally:
            watching.cancel()

    before = [(number, signal.getsignal(number)) for number in ENDING]
    try:
        asyncio.run(run())
    finally:
        terminal.put_back()
        ended.set()
        signal.set_wakeup_fd(-1)
        for number, handler in before:
            signal.signal(number, handler)
    if app.crash is not None:
        raise app.crash
    return app.return_code or 0


def _only_wake_up(*_: object) -> None:
    """Keeps the signal from ending the process: `open_interface` reads it from its pipe."""


def _is_in_gnu_screen() -> bool:
    """Whether GNU screen is between us and the terminal. While the mouse is on, screen 4.9 holds every Esc until the next key
    comes, and then sends both as alt and that key."""
    return "STY" in os.environ and os.environ.get("TERM", "").startswith("screen")


class _Terminal:
    """The terminal as it was, and the way back there."""

    def __init__(self, descriptor: int, output: int) -> None:
        self.descriptor = descriptor
        self.output = output  # what Textual writes to
        self.before = termios.tcgetattr(descriptor)

    def is_there(self) -> bool:
        try:
            termios.tcgetattr(self.descriptor)
        except termios.error:
            return False
        return True

    def put_back(self) -> None:
        """Puts everything back. Waits for a terminal that takes no output, but not for long."""
        with suppress(OSError, termios.error):
            termios.tcsetattr(self.descriptor, termios.TCSANOW, self.before)
        with suppress(OSError, termios.error):
            # an open file of its own, which does not block: the one that we share with the shell must go on blocking
            own = os.open(os.ttyname(self.output), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                _write(own, _RESET)
            finally:
                os.close(own)

    def give_up(self) -> None:
        """As `put_back`, while a thread of Textual's may be stuck in a write: what it still has to say goes nowhere."""
        with suppress(OSError):
            null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
            name = os.ttyname(self.output)
            os.dup2(null, self.output)
            self.output = os.open(name, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.put_back()


def _write(descriptor: int, data: bytes) -> None:
    """Writes to a terminal. Where it takes nothing, what waits in it is dropped, and a stop by XOFF undone."""
    until = time.monotonic() + PUT_BACK_WITHIN
    patience = time.monotonic() + PUT_BACK_WITHIN / 2
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            now = time.monotonic()
            if now > until:
                return
            if now > patience and not data.startswith(_CANCEL):
                data = _CANCEL + _RESET
            if now > patience:
                termios.tcflush(descriptor, termios.TCOFLUSH)
                termios.tcflow(descriptor, termios.TCOOFF)  # without this TCOON does not undo a stop that came by XOFF
                termios.tcflow(descriptor, termios.TCOON)
            select.select([], [descriptor], [], 0.01)


async def _until_gone(terminal: _Terminal, wakeup: int) -> None:
    """Ends the interface when the terminal has vanished: not every one sends a hang-up."""
    while terminal.is_there():
        await asyncio.sleep(WATCH_EVERY)
    os.write(wakeup, bytes([signal.SIGHUP]))
