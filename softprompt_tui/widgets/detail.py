"""The details: all that is known of what loss and readout show; there where the terminal is tall enough for a pane more."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

NOTHING = "Prompt, settings and figures of what\nis shown will stand here."


class DetailPane(VerticalScroll):
    """Shows a text that is made elsewhere; from its top, where it is of another thing than before."""

    def __init__(self) -> None:
        super().__init__(id="detail-pane", classes="pane")
        self.border_title = "Details"
        self._of = ""
        self._text = Text()

    def compose(self) -> ComposeResult:
        yield Static(NOTHING, id="details", markup=False)

    def show(self, of: str, text: Text) -> None:
        if of != self._of:
            self.scroll_home(animate=False)
        if text != self._text or of != self._of:
            self._of, self._text = of, text
            self.query_one("#details", Static).update(text)

    def nothing(self) -> None:
        self.show("", Text(NOTHING))
