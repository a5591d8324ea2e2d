"""Dialogs that ask for a line of text or for one of several keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from softprompt_tui.rendering.sanitize import strip_control_chars


class AskText(ModalScreen[str | None]):
    """Asks for a line of text. Returns the text, or None on escape."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(self, question: str, value: str = "") -> None:
        super().__init__(classes="dialog")
        self.question, self.value = question, value

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self.question, markup=False)
            yield Input(strip_control_chars(self.value), compact=True, select_on_focus=True)
            yield Static("enter confirms, escape cancels", classes="keys", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class AskKey(ModalScreen[str]):
    """Offers answers, each with its key. Returns the pressed key, or "" on escape."""

    def __init__(self, question: str, answers: Sequence[tuple[str, str]]) -> None:
        super().__init__(classes="dialog")
        self.question, self.answers = question, answers

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self.question, markup=False)
            yield Static(
                "\n".join(f"{key}  {meaning}" for key, meaning in (*self.answers, ("escape", "cancel"))),
                classes="keys",
                markup=False,
            )

    def on_key(self, event: events.Key) -> None:
        event.stop()
        if event.key == "escape":
            self.dismiss("")
        elif event.key in dict(self.answers):
            self.dismiss(event.key)
