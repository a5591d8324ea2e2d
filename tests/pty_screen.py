"""A program on a real pseudo-terminal, its screen read by pyte."""

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

KEYS = {"enter": "\r", "escape": "\x1b", "tab": "\t", "up": "\x1b[A", "down": "\x1b[B", "f1": "\x1bOP", "f2": "\x1bOQ", "f3": "\x1bOR", "f4": "\x1bOS",
        "f5": "\x1b[15~", "f6": "\x1b[17~", "f8": "\x1b[19~", "end": "\x1b[F", "home": "\x1b[H"}  # fmt: skip


class Terminal:
    """softprompt-tui, or another command, on a terminal of its own."""

    def __init__(self, *args: str, width: int = 80, height: int = 24, **environment: str) -> None:
        self.screen = QuickScreen(width, height)
        self._stream = QuickStream(self.screen)
        self.sent = bytearray()  # all that the program has sent
        self._read = -1, ""  # how much was sent when the text was read last, and the text
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        command = args or (sys.executable, "-m", "softprompt_tui")
        variables = {"TERM": "xterm-256color", "COLORTERM": "truecolor"} | environment
        for name in ("COLUMNS", "LINES", "SSH_CONNECTION"):
            os.environ.pop(name, None)
        self.process = subprocess.Popen(
            command, stdin=self.slave, stdout=self.slave, stderr=self.slave, env=os.environ | variables, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )  # fmt: skip
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
        """Takes what has come, waiting so long for the first of it; false where nothing came."""
        if not self._selector.select(seconds):
            return False
        try:
            data = os.read(self.master, 1 << 16)
        except OSError:
            return False
        self.sent += data
        # pyte does not know the keyboard protocol's sequences and would print them
        self._stream.feed(re.sub(rb"\x1b\[[<>=?][0-9;]*u|\x1b\[\?[0-9;]*\$p|\x1bP[^\x1b]*\x1b\\", b"", data))
        return True

    @property
    def bytes(self) -> int:
        return len(self.sent)

    @property
    def text(self) -> str:
        if self._read[0] != len(self.sent):
            self._read = len(self.sent), "\n".join(self.screen.display)
        return self._read[1]

    def shows(self, *patterns: str, within: float = 30) -> None:
        """Waits until all the patterns stand on the screen."""
        until = time.monotonic() + within
        while not all(re.search(pattern, self.text) for pattern in patterns):
            left = until - time.monotonic()
            assert left > 0, f"{patterns} not there after {within} s; the screen:\n{self.text}"
            self.read(min(left, 0.5))

    def hides(self, pattern: str, within: float = 30) -> None:
        until = time.monotonic() + within
        while re.search(pattern, self.text):
            left = until - time.monotonic()
            assert left > 0, f"{pattern} is still there after {within} s; the screen:\n{self.text}"
            self.read(min(left, 0.5))

    def press(self, *keys: str) -> None:
        """Keys by name, ctrl+letter, or text as it is."""
        for key in keys:
            sent = chr(ord(key[5]) & 0x1F) if key.startswith("ctrl+") else KEYS.get(key, key)
            os.write(self.master, sent.encode())

    def settle(self) -> None:
        """Until nothing is drawn any more: a key that moves the focus is done by then."""
        while self.read(0.15):
            pass

    def ends(self, within: float = 10) -> int:
        """Waits for the program's end, reading on; its exit code."""
        until = time.monotonic() + within
        while self.process.poll() is None:
            assert time.monotonic() < until, f"it has not ended after {within} s; the screen:\n{self.text}"
            self.read(0.02)
        while self.read(0.05):
            pass
        return self.process.returncode

    def modes(self) -> list[Any]:
        return termios.tcgetattr(self.slave)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)
