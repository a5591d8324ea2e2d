"""The title line: the worker's state, the open entry, and short notices."""

from __future__ import annotations

from functools import partial

from rich.cells import cell_len
from rich.text import Text
from textual.content import Content
from textual.widgets import Static

from softprompt_tui.rendering.cells import fit_cell
from softprompt_tui.rendering.sanitize import sanitize

NOTICE_SECONDS = 5.0
ERROR_STYLE = "bold $text-error"
MIN_LEFT_WIDTH = 24  # in a narrower line, only the state is shown
MIN_NAME_WIDTH = 10  # a name loses its middle down to so many cells


class TitleLine(Static):
    """Shows the current state, or a notice for a few seconds."""

    def __init__(self) -> None:
        super().__init__("softprompt-tui", id="title", markup=False)
        self._parts: tuple[str, ...] = ()
        self._tone, self._right = "warning", ""
        self._long_name = ""  # the part that may be cut, if the line is too narrow
        self._notice, self._notice_name = "", ""
        self._failure, self._failure_is_in_view = "", False

    def set_failure(self, text: str, is_in_view: bool = False) -> None:
        """Say that a run failed: instead of the state if that run is in view, or before the state if it is not."""
        if (text, is_in_view) != (self._failure, self._failure_is_in_view):
            self._failure, self._failure_is_in_view = text, is_in_view
            self._draw()

    def set_state(self, tone: str, *parts: str, right: str = "", name: str = "") -> None:
        """Show the state.

        Args:
            tone: names the theme color of the worker's dot.
            right: is shown at the right edge.
            name: the part that may lose its middle where the parts do not fit.
        """
        state = (tone, tuple(filter(None, parts)), right, name)
        if state != (self._tone, self._parts, self._right, self._long_name):
            self._tone, self._parts, self._right, self._long_name = state
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

    def show_notice(self, text: str, name: str = "") -> None:
        """Show a text for a few seconds. `name` is the part of it that may lose its middle."""
        self._notice, self._notice_name = text, name
        self._draw()
        self.set_timer(NOTICE_SECONDS, partial(self._clear_notice, text))

    def _clear_notice(self, text: str) -> None:
        if self._notice == text:
            self.clear_notice()

    def clear_notice(self) -> None:
        self._notice = ""
        self._draw()

    def _draw(self) -> None:
        has_failed = bool(self._failure) and self._failure_is_in_view and not self._notice
        if has_failed:
            self._draw_failure()
            return
        parts, name = self._parts, self._long_name
        if self._notice:
            parts, name = (*self._parts[:1], self._notice), self._notice_name
        has_no_worker = self._tone == "error" and not self._notice
        if len(parts) == 1 and not has_no_worker:  # nothing is going on
            parts = ("softprompt-tui", *parts)
        failure = f"✗ {self._failure}  ·  " if self._failure and not self._failure_is_in_view else ""
        choices = [(parts, self._right)]
        if self._notice:  # it is short-lived, and may take the place of what does not fit beside it
            choices += [(parts[-1:], self._right), (parts[-1:], "")]
        room = self.content_size.width - len("● ") - cell_len(failure)
        for shown, right in choices:
            left, fits = _fit_line(shown, name, right, room)
            if fits:
                break
        # assembled, not parsed: names must not be treated as markup
        self.update(Content.assemble(self._dot, (failure, ERROR_STYLE), (left, ERROR_STYLE) if has_no_worker else left))

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


def _fit_line(parts: tuple[str, ...], name: str, right: str, width: int) -> tuple[str, bool]:
    """Return the parts, with `right` at the right edge if there is room for it, and whether all parts fit."""
    left, right, name = sanitize("  ·  ".join(parts)), sanitize(right), sanitize(name)
    room = width - cell_len(right) - len("  ")
    has_right = bool(right) and room >= MIN_LEFT_WIDTH
    room = room if has_right else width
    if name and (excess := cell_len(left) - room) > 0:
        shorter = min(cell_len(name), max(MIN_NAME_WIDTH, cell_len(name) - excess))
        left = left.replace(name, fit_cell(name, shorter, cut_middle=True), 1)
    fits = cell_len(left) <= room
    if has_right:
        fitted = Text(left)
        fitted.truncate(room, overflow="ellipsis", pad=True)
        left = f"{fitted.plain}  {right}"
    return left, fits
