"""Everything known about an entry, and what can be done with its model."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt_tui.widgets.key_bar import DialogKeys

PORT, ASSIGN = "port", "assign"


class EntryDetailsScreen(ModalScreen[str]):
    """Shows an entry. Returns PORT, ASSIGN or "" on escape.

    Args:
        no_port: why the entry cannot be trained for another model, or "".
        can_assign: whether a model can be set, because the imported file did not name one.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", f"choose('{PORT}')", "Train again for another model"),
        Binding("a", f"choose('{ASSIGN}')", "Say which model it belongs to"),
        Binding("escape,enter,q", "dismiss('')", "Back", key_display="esc"),
    ]

    def __init__(self, facts: RenderableType, no_port: str, can_assign: bool) -> None:
        super().__init__(classes="dialog")
        self.facts, self.no_port, self.can_assign = facts, no_port, can_assign

    def compose(self) -> ComposeResult:
        with Vertical(classes="wide") as dialog:
            dialog.border_title = "Details"
            with VerticalScroll():
                yield Static(self.facts, id="detail-text", markup=False)
            if self.no_port:
                yield Static(f"no port: {self.no_port}", classes="keys", markup=False)
            yield DialogKeys()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "choose" or (self.can_assign if parameters == (ASSIGN,) else not self.no_port)

    def action_choose(self, action: str) -> None:
        self.dismiss(action)
