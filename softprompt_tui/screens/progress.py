"""A modal screen for short waits. It blocks all input, so that no key reaches the next dialog by accident."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.widgets.key_bar import DialogKeys


class ProgressScreen(ModalScreen[None]):
    """Runs `work`, then closes with `result` or `error` set. Escape cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "give_up", "Cancel", key_display="esc")]

    def __init__(self, message: str, work: Coroutine[Any, Any, Any]) -> None:
        super().__init__(classes="dialog")
        self.message, self._work = message, work
        self.result: Any = None
        self.error: BaseException | None = None

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(f"{sanitize(self.message)} …", markup=False)
            yield DialogKeys()

    def on_mount(self) -> None:
        self.run_worker(self._run(), group="busy", exclusive=True)

    async def _run(self) -> None:
        try:
            self.result = await self._work
        except Exception as error:  # for the caller to raise
            self.error = error
        self.dismiss(None)

    def action_give_up(self) -> None:
        self.workers.cancel_node(self)
        self.error = self.error or UserCancelled()
        self.dismiss(None)


class UserCancelled(Exception):
    """The user pressed escape instead of waiting."""
