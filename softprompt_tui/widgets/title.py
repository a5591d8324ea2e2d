"""The title line: the worker's state, the open entry, and short notices."""

from __future__ import annotations

from functools import partial

from rich.cells import cell_len
from rich.text import Text
from textual.content import Content
from textual.widgets import Static

from softprompt_tui.rendering.sanitize import sanitize

NOTICE_SECONDS = 5.0
ERROR_STYLE = "bold $text-error"
MIN_LEFT_WIDTH = 24  # in a narrower line, only the state is shown


class TitleLine(Static):
    """Shows the current state, or a notice for a few seconds."""

    def __init__(self) -> None:
        super().__init__("softprompt-tui", id="title", markup=False)
        self._parts: tuple[str, ...] = ()
        self._tone, self._right = "warning", ""
        self._notice = ""
        self._failure, self._failure_is_in_view = "", False

    def set_failure(self, text: str, is_in_view: bool = False) -> None:
        """Say that a run failed: instead of the state if that run is in view, or before the state if it is not."""
        if (text, is_in_view) != (self._failure, self._failure_is_in_view):
            self._failure, self._failure_is_in_view = text, is_in_view
            self._draw()

    def set_state(self, tone: str, *parts: str, right: str = "") -> None:
        """Show the state. `tone` names the theme color of the worker's dot. `right` is shown at the right edge."""
        state = (tone, tuple(filter(None, parts)), right)
        if state != (self._tone, self._parts, self._right):
            self._tone, self._parts, self._right = state
            self._draw()

    @property
    def room(self) -> int:
        """The cells between the dot and the text at the right edge, or the edge if there is no room for that text."""
        room = self.content_size.width - len("● ") - cell_len(sanitize(self._right)) - len("  ")
        room = room if self._right and room >= MIN_LEFT_WIDTH else self.content_size.width - len("● ")
        return room - (len(f"{self._parts[0]}  ·  ✗ ") if self._is_training else 0)

    @property
    def _is_training(self) -> bool:
        return self._tone == "accent" and bool(self._parts)

    def on_resize(self) -> None:
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
        has_failed = bool(self._failure) and self._failure_is_in_view and not self._notice
        parts = (*self._parts[:1], self._notice) if self._notice else self._parts
        if len(parts) == 1:  # nothing is going on
            parts = ("softprompt-tui", *parts)
        if has_failed:
            self._draw_failure()
            return
        failure = f"✗ {self._failure}  ·  " if self._failure and not self._failure_is_in_view else ""
        # assembled, not parsed: names must not be treated as markup
        left, right = sanitize("  ·  ".join(parts)), sanitize(self._right)
        # without the dot, and two spaces between left and right
        room = self.content_size.width - cell_len(right) - cell_len(failure) - 4
        if right and room >= MIN_LEFT_WIDTH:
            fitted = Text(left)
            fitted.truncate(room, overflow="ellipsis", pad=True)
            left = f"{fitted.plain}  {right}"
        self.update(Content.assemble(self._dot, (failure, ERROR_STYLE), left))

    @property
    def _dot(self) -> tuple[str, str]:
        return "● ", f"${self._tone}"

    def _draw_failure(self) -> None:
        """Name the run in view, which failed, behind what is training. Only its mark and the reason are colored."""
        run, gap, reason = sanitize(self._failure).rpartition(" · ")
        left = Content.assemble(("✗ ", ERROR_STYLE), f"{run}{gap}", (reason, ERROR_STYLE))
        if self._is_training:
            left = Content.assemble(self._dot, f"{sanitize(self._parts[0])}  ·  ", left)
        right = sanitize(self._right)
        room = self.content_size.width - cell_len(right) - len("  ")
        if right and room >= MIN_LEFT_WIDTH:
            left = Content.assemble(left.truncate(room, ellipsis=True, pad=True), f"  {right}")
        self.update(left)
