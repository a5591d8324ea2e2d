"""A scrollable page of text: all details of an entry, or a comparison."""

from __future__ import annotations

from typing import ClassVar

from rich.console import RenderableType
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt_tui.widgets.key_bar import DialogKeys


class TextScreen(ModalScreen[None]):
    """Shows `text`, from its end if `at_end`."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,enter,q", "dismiss", "Back", key_display="esc")]

    def __init__(self, text: RenderableType, at_end: bool = False) -> None:
        super().__init__(classes="dialog")
        self.text, self.at_end = text, at_end

    def on_mount(self) -> None:
        if self.at_end:
            self.query_one(VerticalScroll).scroll_end(animate=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="wide"):
            with VerticalScroll():
                yield Static(self.text, id="detail-text", markup=False)
            yield DialogKeys()
