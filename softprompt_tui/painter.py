"""Combine many requests for a repaint into a few repaints."""

from __future__ import annotations

import time
from collections.abc import Callable

from textual.screen import Screen

from softprompt_tui.services.line_speed import LineSpeed


class Painter:
    """Paints a part of the screen when the latest request is due and the terminal has shown the previous frames."""

    def __init__(
        self, screen: Screen[None], line: LineSpeed, paint: Callable[[], None], min_delay: float = 0.01
    ) -> None:
        self.screen, self.line, self._paint, self.min_delay = screen, line, paint, min_delay
        self._painted_at = self._due_at = 0.0

    def request(self, interval: float) -> None:
        """Paint once `interval` seconds have passed since the last paint."""
        self.paint_within(max(self.min_delay, self._painted_at + interval - time.monotonic()))

    def paint_within(self, seconds: float) -> None:
        """Paint in `seconds`, or earlier if a paint is already due."""
        if not seconds:
            self.paint()
            return
        due = time.monotonic() + seconds
        if not self._due_at or self._due_at > due:
            self._due_at = due
            self.screen.set_timer(seconds, self._paint_due)

    def paint(self) -> None:
        self._due_at, self._painted_at = 0.0, time.monotonic()
        self._paint()

    def _paint_due(self) -> None:
        if not self._due_at:  # it has been painted in the meantime
            return
        if delay := self.line.delay():  # the terminal has not shown the previous frames yet
            self.screen.set_timer(delay, self._paint_due)
            return
        self.paint()
        self.screen.call_after_refresh(self.line.ask)
