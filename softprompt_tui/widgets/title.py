"""The title line: the worker's state, the open entry, and short notices."""

from __future__ import annotations

from functools import partial

from textual.content import Content
from textual.widgets import Static

from softprompt_tui.rendering.sanitize import sanitize

NOTICE_SECONDS = 5.0


class TitleLine(Static):
    """Shows the current state, or a notice for a few seconds."""

    def __init__(self) -> None:
        super().__init__("softprompt-tui", id="title", markup=False)
        self._parts: tuple[str, ...] = ()
        self._tone = "warning"
        self._notice = ""

    def set_state(self, tone: str, *parts: str) -> None:
        """Show the state. `tone` names the theme color of the worker's dot."""
        self._tone, self._parts = tone, tuple(filter(None, parts))
        self._draw()

    def show_notice(self, text: str) -> None:
        self._notice = text
        self._draw()
        self.set_timer(NOTICE_SECONDS, partial(self._clear_notice, text))

    def _clear_notice(self, text: str) -> None:
        if self._notice == text:
            self._notice = ""
            self._draw()

    def _draw(self) -> None:
        parts = (*self._parts[:1], self._notice) if self._notice else ("softprompt-tui", *self._parts)
        # assembled, not parsed: names must not be treated as markup
        self.update(Content.assemble(("● ", f"${self._tone}"), sanitize("  ·  ".join(parts))))
