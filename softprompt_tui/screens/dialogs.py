"""Dialogs that ask for a line of text or for one of several keys, and a loop that asks until an answer is accepted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from softprompt.errors import EntryChanged, EntryNotFound, SoftPromptError
from softprompt_tui.rendering.sanitize import sanitize, strip_control_chars
from softprompt_tui.widgets.key_bar import DialogKeys
from softprompt_tui.widgets.line_input import LineInput

if TYPE_CHECKING:
    from softprompt_tui.app_context import AppContext


Answer = TypeVar("Answer")


async def ask_until_accepted(
    context: AppContext,
    make_dialog: Callable[[Answer | None, str], Screen[Answer | None]],
    accept: Callable[[Answer], Awaitable[None]],
) -> None:
    """Ask until `accept` takes the answer or the user cancels. A refused answer is shown again, with the reason.

    Args:
        make_dialog: makes the dialog from the refused answer (None at first) and the reason ("" at first).
        accept: acts on an answer. Raises SoftPromptError to refuse it.

    Raises:
        EntryChanged, EntryNotFound: no other answer would be accepted.
    """
    answer: Answer | None = None
    reason = ""
    while (answer := await context.ask(make_dialog(answer, reason))) is not None:
        try:
            await accept(answer)
            return
        except (EntryChanged, EntryNotFound):
            raise
        except SoftPromptError as error:
            reason = str(error)


class AskText(ModalScreen[str | None]):
    """Asks for a line of text. Returns the text, or None on escape.

    `trouble` says why `value` was refused, or is "".
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take", "OK", key_display="enter", priority=True),
        Binding("escape", "dismiss(None)", "Cancel", key_display="esc"),
    ]

    def __init__(self, question: str, value: str = "", trouble: str = "") -> None:
        super().__init__(classes="dialog")
        self.question, self.value, self.trouble = question, value, trouble

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self.question, markup=False)
            yield LineInput(strip_control_chars(self.value))
            if self.trouble:
                yield Static(sanitize(self.trouble), id="trouble", markup=False)
            yield DialogKeys()

    def action_take(self) -> None:
        self.dismiss(self.query_one(LineInput).value)


class AskKey(ModalScreen[str]):
    """Offers answers, each with its key. Returns the pressed key, or "" on escape."""

    def __init__(self, question: str, answers: Sequence[tuple[str, str]]) -> None:
        super().__init__(classes="dialog")
        self.question = question
        for key, meaning in answers:
            self._bindings.bind(key, f"dismiss('{key}')", meaning[:1].upper() + meaning[1:], key_display=key)
        self._bindings.bind("escape", "dismiss('')", "Cancel", key_display="esc")

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self.question, markup=False)
            yield DialogKeys(in_rows=True)
