"""A line of text with the editor's keys: select all, clear, undo and redo."""

from __future__ import annotations

from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.strip import Strip
from textual.widgets import Input

from softprompt_tui.rendering.cells import fit_cell

COMPACT = "-textual-compact"  # the class that `compact=True` adds
MAX_UNDO = 200  # steps; a line is short


def is_alt_key(event: events.Key) -> bool:
    """Return whether a letter came with alt. A terminal sends it like the letter, after an escape."""
    return event.key.startswith("alt+")


class LineInput(Input):
    """Textual's input line, with undo and without a key that deletes in the wrong direction."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+l,ctrl+shift+a", "select_all", "Select all", show=False),
        Binding("ctrl+g", "clear_all", "Clear", show=False),
        # Textual deletes the word to the right with these two
        Binding("ctrl+backspace,alt+backspace", "delete_left_word", "Delete left to start of word", show=False),
        Binding("alt+d,alt+delete", "delete_right_word", "Delete right to start of word", show=False),
        Binding("ctrl+z,super+z", "undo", "Undo", show=False),
        Binding("ctrl+y,super+y", "redo", "Redo", show=False),
    ]

    _undo: tuple[str, ...] = ()  # earlier values, the latest last
    _redo: tuple[str, ...] = ()
    _word = ""  # the value after the last typed letter, as long as the word goes on

    def __init__(self, value: str | None = None, *, id: str | None = None, placeholder: str = "") -> None:
        # Textual would add these classes itself, but style the widget again each time: a twelfth of the startup time
        super().__init__(value, placeholder, id=id, classes="-valid")
        self.add_class(COMPACT, update=False)

    def watch_value(self, before: str, after: str) -> None:
        """Remember the value before a change. The letters of a word are one change."""
        is_letter = len(after) == len(before) + 1 and after.count(" ") == before.count(" ")
        if not (is_letter and before and before == self._word):
            self._undo = (*self._undo, before)[-MAX_UNDO:]
        self._word, self._redo = after if is_letter else "", ()

    async def _on_key(self, event: events.Key) -> None:
        if is_alt_key(event):
            event.prevent_default()  # otherwise Textual also types the letter

    def render_line(self, y: int) -> Strip:
        """Without the focus, a value that does not fit is cut in its middle, so that its end can be read too."""
        if y or self.has_focus or cell_len(self.value) <= self.size.width:
            return super().render_line(y)
        text = fit_cell(self.value, self.size.width, cut_middle=True)
        return Strip([Segment(text)], self.size.width).apply_style(self.rich_style)

    def action_clear_all(self) -> None:
        self.value = ""

    def action_undo(self) -> None:
        self._step_back("_undo", "_redo")

    def action_redo(self) -> None:
        self._step_back("_redo", "_undo")

    def _step_back(self, source: str, target: str) -> None:
        """Go to the last value in `source`, and put the present one in `target`."""
        if values := getattr(self, source):
            others = (*getattr(self, target), self.value)
            self.value = values[-1]  # its watcher changes both
            setattr(self, source, values[:-1])
            setattr(self, target, others)
            self.cursor_position = len(self.value)
