"""The details: all that is known of what loss and readout show; there where the terminal is tall enough for a pane more."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from softprompt_tui.rendering.details import Facts

NOTHING = "Prompt, settings and figures of what is shown will stand here."


class DetailPane(VerticalScroll):
    """Shows facts; from their top, where they are of another thing than before, and drawn anew only where they differ."""

    def __init__(self) -> None:
        super().__init__(id="detail-pane", classes="pane")
        self.border_title = "Details"
        self._of = ""
        self._facts: Facts | None = None

    def compose(self) -> ComposeResult:
        yield Static(NOTHING, id="details", markup=False)

    def show(self, of: str, facts: Facts) -> None:
        if of != self._of:
            self.scroll_home(animate=False)
        if (of, facts) != (self._of, self._facts):
            self._of, self._facts = of, facts
            self.query_one("#details", Static).update(facts.render())

    def nothing(self) -> None:
        self._of, self._facts = "", None
        self.query_one("#details", Static).update(NOTHING)
