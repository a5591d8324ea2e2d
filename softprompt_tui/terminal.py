"""Opening the interface on this terminal, and leaving it as it was, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import threading
from contextlib import suppress

ENDING = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
ENDS_WITHIN = 1.5  # seconds for the interface to end by itself
WATCH_EVERY = 0.5  # seconds between looks whether the terminal is still there
# what a terminal may have been told: the alternate screen, mouse, focus, paste, keyboard protocol, a hidden cursor
_RESET = "\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1015l\x1b[?1004l\x1b[?2004l\x1b[<u\x1b[?1049l\x1b[?25h\x1b[0m"


def open_interface() -> int:
    """Runs the interface until it is left; returns the exit code. On a signal or a vanished terminal it ends within two seconds.

    Raises what ended it, once the terminal is as it was before.
    """
    from softprompt_tui.app import SoftPromptApp

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    app = SoftPromptApp()
    ended = threading.Event()

    def put_back() -> None:
        with suppress(OSError, termios.error):
            os.write(sys.__stdout__.fileno(), _RESET.encode())  # type: ignore[union-attr]
        with suppress(OSError, termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)

    def give_up() -> None:
        if not ended.wait(ENDS_WITHIN):  # the driver may be stuck in a write to a terminal that is gone
            put_back()
            os._exit(1)

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            threading.Thread(target=give_up, daemon=True).start()
            app.leave_now()

        for number in ENDING:
            loop.add_signal_handler(number, end)
        watching = asyncio.create_task(_until_gone(descriptor, end))
        try:
            await app.run_async()
        finally:
            watching.cancel()
            for number in ENDING:
                signal.signal(number, signal.SIG_IGN)

    try:
        asyncio.run(run())
    finally:
        ended.set()
        put_back()
    if app.crash is not None:
        raise app.crash
    return app.return_code or 0


async def _until_gone(descriptor: int, end: object) -> None:
    """Calls `end` when the terminal has vanished: not every one sends a hang-up."""
    assert callable(end)
    while True:
        await asyncio.sleep(WATCH_EVERY)
        try:
            termios.tcgetattr(descriptor)
        except termios.error:
            end()
            return
