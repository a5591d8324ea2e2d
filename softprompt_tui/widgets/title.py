"""The first line: what the worker does, what is open, and for a while what has just happened."""

from __future__ import annotations

from functools import partial

from textual.content import Content
from textual.widgets import Static

from softprompt_tui.rendering.sanitize import sanitize

SAID_FOR = 5.0  # seconds


class TitleLine(Static):
    """`show` says how things are, `say` what has happened."""

    def __init__(self) -> None:
        super().__init__("softprompt-tui", id="title", markup=False)
        self._parts: tuple[str, ...] = ()
        self._tone = "warning"
        self._news = ""

    def show(self, tone: str, *parts: str) -> None:
        """`tone` is a colour of the theme, for how the worker is."""
        self._tone, self._parts = tone, tuple(filter(None, parts))
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
        # assembled, not parsed: a name in it is no markup
        self.update(Content.assemble(("● ", f"${self._tone}"), sanitize("  ·  ".join(parts))))
