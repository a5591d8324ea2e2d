"""The first line: what the worker does, what is open, and for a while what has just happened."""

from __future__ import annotations

from functools import partial

from textual.widgets import Static

from softprompt_tui.inert import inert

SAID_FOR = 5.0  # seconds


class TitleLine(Static):
    """`show` says how things are, `say` what has happened."""

    def __init__(self) -> None:
        super().__init__("softprompt-tui", id="title", markup=False)
        self._parts: tuple[str, ...] = ()
        self._news = ""

    def show(self, *parts: str) -> None:
        self._parts = tuple(filter(None, parts))
        self._draw()

    def say(self, words: str) -> None:
        self._news = words
        self._draw()
        self.set_timer(SAID_FOR, partial(self._forget, words))

    def _forget(self, words: str) -> None:
        if self._news == words:
            self._news = ""
            self._draw()

    def _draw(self) -> None:
        parts = (*self._parts[:1], self._news) if self._news else ("softprompt-tui", *self._parts)
        self.update(inert("  ·  ".join(parts)))
