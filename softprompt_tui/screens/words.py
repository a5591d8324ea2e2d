"""The words screen: what the terms on the screen mean, those of the focused pane first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt_tui.services.words import WORDS, Word, explained_fields, words_of
from softprompt_tui.widgets.key_bar import DialogKeys


class WordsScreen(ModalScreen[None]):
    """Explains the words of a pane, then all others."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "dismiss", "Back", key_display="esc"),
    ]

    def __init__(self, pane: str) -> None:
        super().__init__(classes="dialog")
        self.pane = pane

    def compose(self) -> ComposeResult:
        own = words_of(self.pane)
        parts = list(_paragraphs(own))
        if fields := explained_fields(self.pane):
            parts += [Text("Fields\n", "bold"), *(_paragraph(label, meaning) for label, meaning in fields), Text()]
        if others := [word for word in WORDS if word not in own]:
            parts += [Text("Other words\n", "bold"), *_paragraphs(others)]
        with Vertical() as dialog:
            dialog.border_title = f"Words in {self.pane}"
            with VerticalScroll():
                yield Static(Group(*parts), id="help-text", markup=False)
            yield DialogKeys()


def _paragraphs(words: Iterable[Word]) -> Iterable[Text]:
    for word in words:
        yield _paragraph(", ".join(word.labels), word.meaning).append("\n")


def _paragraph(label: str, meaning: str) -> Text:
    return Text.assemble((label, "bold"), f"  {meaning}")
