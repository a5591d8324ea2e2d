"""The details pane: everything known about the current run or entry. Only tall terminals show it."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll

from softprompt_tui.rendering.details import Facts
from softprompt_tui.widgets.sized_text import SizedText

PLACEHOLDER = "Shows prompt, settings and results of the current run or entry."


class DetailPane(VerticalScroll):
    """Shows facts about a subject. Redraws only if they change, and scrolls to the top for a new subject."""

    def __init__(self) -> None:
        super().__init__(id="detail-pane", classes="pane")
        self.border_title = "Details"
        self._subject = ""
        self._facts: Facts | None = None

    def compose(self) -> ComposeResult:
        yield SizedText(PLACEHOLDER, id="details", markup=False)

    def show(self, subject: str, facts: Facts) -> None:
        if subject != self._subject:
            self.scroll_home(animate=False)
        if (subject, facts) != (self._subject, self._facts):
            self._subject, self._facts = subject, facts
            self.query_one("#details", SizedText).update(facts.render())

    @property
    def text_lines(self) -> int:
        """The lines that the text takes."""
        return self.query_one("#details", SizedText).outer_size.height

    def clear(self) -> None:
        self._subject, self._facts = "", None
        self.query_one("#details", SizedText).update(PLACEHOLDER)
