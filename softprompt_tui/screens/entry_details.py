"""Everything known about an entry, and what can be done with its model."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

PORT, ASSIGN = "port", "assign"


class EntryDetailsScreen(ModalScreen[str]):
    """Shows an entry. Returns PORT, ASSIGN or "" on escape.

    Args:
        no_port: why the entry cannot be trained for another model, or "".
        can_assign: whether a model can be set, because the imported file did not name one.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q", "dismiss('')", "Back"),
        Binding("p", f"choose('{PORT}')", "Port"),
        Binding("a", f"choose('{ASSIGN}')", "Assign"),
    ]

    def __init__(self, facts: RenderableType, no_port: str, can_assign: bool) -> None:
        super().__init__(classes="dialog")
        self.facts, self.no_port, self.can_assign = facts, no_port, can_assign

    def compose(self) -> ComposeResult:
        with Vertical(classes="wide"):
            with VerticalScroll():
                yield Static(self.facts, id="detail-text", markup=False)
            keys = ["p  train it again for another model (port)" if not self.no_port else f"no port: {self.no_port}"]
            if self.can_assign:
                keys.append("a  say which model it belongs to (assign)")
            yield Static("\n".join((*keys, "escape  back")), classes="keys", markup=False)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "choose" or (self.can_assign if parameters == (ASSIGN,) else not self.no_port)

    def action_choose(self, action: str) -> None:
        self.dismiss(action)
