"""The details pane: everything known about the current run or entry. Only tall terminals show it."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.geometry import Size

from softprompt_tui.rendering.details import Facts
from softprompt_tui.widgets.pane import explain_when_empty
from softprompt_tui.widgets.sized_text import SizedText
from softprompt_tui.widgets.steady_text import update_if_changed

PLACEHOLDER = "Shows prompt, settings and results of the current run or entry."
MEANINGS = (  # shown where there is room
    ("similarity", "of the soft prompt to your prompt; 1: no difference"),
    ("composed", "the same, while it stands inside sentences"),
    ("floor", "what you get without training; look for far more"),
    ("readout", "the nearest words: only a hint, the vectors count"),
)


class DetailPane(VerticalScroll):
    """Shows facts about a subject. Redraws only if they change, and scrolls to the top for a new subject."""

    def __init__(self) -> None:
        super().__init__(id="detail-pane", classes="pane")
        self.border_title = "Details"
        self._subject = ""
        self._facts: Facts | None = None

    def compose(self) -> ComposeResult:
        yield SizedText(id="details", markup=False)

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
        self._explain()

    def on_resize(self) -> None:
        if self._facts is None:
            self._explain()

    def _explain(self) -> None:
        target = self.query_one("#details", SizedText)
        room = Size(target.content_size.width, self.size.height)
        update_if_changed(target, explain_when_empty(PLACEHOLDER, MEANINGS, room))
