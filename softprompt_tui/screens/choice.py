"""A dialog that offers a list of choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.widgets.key_bar import DialogKeys


class ChoiceScreen(ModalScreen[str]):
    """Offers a list of choices. Returns the chosen text, or "" on escape."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take", "OK", key_display="enter", priority=True),
        Binding("j", "move(1)", show=False),
        Binding("k", "move(-1)", show=False),
    ]

    def __init__(self, question: str, choices: Sequence[str], escape_meaning: str) -> None:
        super().__init__(classes="dialog")
        self.question, self.choices = question, choices
        self._bindings.bind("escape", "dismiss('')", escape_meaning, key_display="esc")

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self.question, markup=False)
            yield OptionList(
                *(Option(Text(sanitize(choice)), f"{i}") for i, choice in enumerate(self.choices)),
                compact=True,
                markup=False,
            )
            yield DialogKeys()

    def on_mount(self) -> None:
        self.query_one(OptionList).highlighted = 0

    def action_take(self) -> None:
        self.query_one(OptionList).action_select()

    def action_move(self, rows: int) -> None:
        choices = self.query_one(OptionList)
        choices.action_cursor_down() if rows > 0 else choices.action_cursor_up()

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss(self.choices[event.option_index])
