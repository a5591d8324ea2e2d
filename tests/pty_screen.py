"""Run a program on a real pseudo-terminal and read its screen with pyte."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import selectors
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import Any

from tests.quick_screen import QuickScreen, QuickStream

KEYS = {
    "enter": "\r", "escape": "\x1b", "tab": "\t", "up": "\x1b[A", "down": "\x1b[B", "f1": "\x1bOP", "f2": "\x1bOQ",
    "f3": "\x1bOR", "f4": "\x1bOS", "f5": "\x1b[15~", "f6": "\x1b[17~", "f8": "\x1b[19~", "end": "\x1b[F",
    "home": "\x1b[H",
}  # fmt: skip


SLOW_READ_BYTES = 48  # of a slow line at once


class Terminal:
    """A terminal that runs softprompt-tui or another command."""

    def __init__(
        self, *args: str, width: int = 80, height: int = 24, bytes_per_second: float = 0.0, **environment: str
    ) -> None:
        self.screen = QuickScreen(width, height)
        self._stream = QuickStream(self.screen)
        self.output = bytearray()
        self._bytes_per_second = bytes_per_second  # of a slow line; 0 is as fast as possible
        self._free_at = time.monotonic()  # when the line has carried what was read so far
        self._text_cache = -1, ""  # length of the output, and the screen's text at that time
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.initial_modes = termios.tcgetattr(self.slave)
        command = args or (sys.executable, "-m", "softprompt_tui")
        variables = {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environment
        for name in ("COLUMNS", "LINES", "SSH_CONNECTION"):
            os.environ.pop(name, None)
        self.process = subprocess.Popen(
            command,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=os.environ | variables,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.master, selectors.EVENT_READ)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._selector.close()
        for descriptor in (self.master, self.slave):
            if descriptor >= 0:
                os.close(descriptor)

    def read(self, seconds: float) -> bool:
        """Read pending output and draw it on the screen. Return whether any arrived within `seconds`."""
        deadline = time.monotonic() + seconds
        if (wait := self._free_at - time.monotonic()) > 0:
            time.sleep(min(wait, seconds))
        if time.monotonic() < self._free_at or not self._selector.select(max(0.0, deadline - time.monotonic())):
            return False
        try:
            data = os.read(self.master, SLOW_READ_BYTES if self._bytes_per_second else 1 << 16)
        except OSError:
            return False
        if self._bytes_per_second:
            self._free_at = max(self._free_at, time.monotonic()) + len(data) / self._bytes_per_second
        self.output += data
        for _ in re.findall(rb"\x1b\[\?2026\$p", bytes(self.output[-len(data) - 8 :])):
            os.write(self.master, b"\x1b[?2026;2$y")  # as a terminal that has shown all up to here
        # pyte does not know these sequences (keyboard protocol, mode queries, DCS) and would print them
        self._stream.feed(re.sub(rb"\x1b\[[<>=?][0-9;]*u|\x1b\[\?[0-9;]*\$p|\x1bP[^\x1b]*\x1b\\", b"", data))
        return True

    @property
    def byte_count(self) -> int:
        return len(self.output)

    @property
    def text(self) -> str:
        if self._text_cache[0] != len(self.output):
            self._text_cache = len(self.output), "\n".join(self.screen.display)
        return self._text_cache[1]

    def wait_for(self, *patterns: str, within: float = 30) -> None:
        """Wait until the screen shows all the patterns."""
        deadline = time.monotonic() + within
        while not all(re.search(pattern, self.text) for pattern in patterns):
            remaining = deadline - time.monotonic()
            assert remaining > 0, f"{patterns} did not appear within {within} s. The screen:\n{self.text}"
            self.read(min(remaining, 0.5))

    def wait_until_hidden(self, pattern: str, within: float = 30) -> None:
        deadline = time.monotonic() + within
        while re.search(pattern, self.text):
            remaining = deadline - time.monotonic()
            assert remaining > 0, f"{pattern} is still visible after {within} s. The screen:\n{self.text}"
            self.read(min(remaining, 0.5))

    def press(self, *keys: str) -> None:
        """Type keys: a name, ctrl+letter, or literal text."""
        for key in keys:
            characters = chr(ord(key[5]) & 0x1F) if key.startswith("ctrl+") else KEYS.get(key, key)
            os.write(self.master, characters.encode())

    def settle(self) -> None:
        """Wait until the program draws nothing more. A key that moves the focus has taken effect by then."""
        while self.read(0.15):
            pass

    def wait_for_exit(self, within: float = 10) -> int:
        """Wait until the program ends, reading its output meanwhile. Return its exit code."""
        deadline = time.monotonic() + within
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"the program did not end within {within} s. The screen:\n{self.text}"
            self.read(0.02)
        while self.read(0.05):
            pass
        return self.process.returncode

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
