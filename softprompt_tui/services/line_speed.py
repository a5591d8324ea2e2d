"""Measure how long the line to the terminal takes, so that a slow one gets fewer live frames and answers keys sooner.

After a live frame, the terminal is asked for a mode. Its answer comes once it has shown the frame, whatever buffers lie
between: the kernel, SSH, a modem. Until then, and for as long again, nothing that only shows progress is painted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

QUERY = "\x1b[?2026$p"  # is synchronized output on? Textual asks this at the start and accepts every answer
FAST_SECONDS = 0.05  # a line that answers within this time is not slow
POLL_SECONDS = 0.1
MAX_PAUSE_SECONDS = 20.0
LOST_SECONDS = 60.0  # an answer that has not come by then is lost; at 9,600 bit/s, the first screens take 50 s


class LineSpeed:
    """The time between a frame and the terminal's answer. A terminal that never answers gets every frame.

    Args:
        write: sends text to the terminal.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._has_answers = False
        self._asked_at: float | None = None
        self._free_at = 0.0  # when the next live frame may be painted

    def ask(self) -> None:
        """Ask the terminal to answer after what has been sent so far."""
        if self._has_answers and self._asked_at is None:
            self._asked_at = time.monotonic()
            self._write(QUERY)

    def answered(self) -> None:
        """Note the terminal's answer. Called in the input thread."""
        self._has_answers = True
        asked_at, self._asked_at = self._asked_at, None
        if asked_at is not None and (seconds := time.monotonic() - asked_at) > FAST_SECONDS:
            self._free_at = time.monotonic() + min(seconds, MAX_PAUSE_SECONDS)

    def delay(self) -> float:
        """Return how many seconds a live frame should wait at least; 0.0 if it can be painted now."""
        now, asked_at = time.monotonic(), self._asked_at
        if asked_at is not None:
            if now - asked_at > LOST_SECONDS:
                self._asked_at, self._has_answers = None, False
            elif now - asked_at > FAST_SECONDS:
                return POLL_SECONDS
        return max(0.0, self._free_at - now)
