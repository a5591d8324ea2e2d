"""Something that takes a moment: nothing else can be typed meanwhile, so that no key meant for a pane answers what comes after."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt_tui.rendering.sanitize import sanitize


class BusyScreen(ModalScreen[None]):
    """Lies over the panes while `work` runs, and goes with its result; escape gives it up."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "give_up", "Give up")]

    def __init__(self, words: str, work: Coroutine[Any, Any, Any]) -> None:
        super().__init__(classes="dialog")
        self.words, self._work = words, work
        self.result: Any = None
        self.error: BaseException | None = None

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(f"{sanitize(self.words)} …", markup=False)
            yield Static("escape gives it up", classes="keys", markup=False)

    def on_mount(self) -> None:
        self.run_worker(self._run(), group="busy", exclusive=True)

    async def _run(self) -> None:
        try:
            self.result = await self._work
        except Exception as error:  # it is for who waits, and raised there
            self.error = error
        self.dismiss(None)

    def action_give_up(self) -> None:
        self.workers.cancel_node(self)
        self.error = self.error or GivenUp()
        self.dismiss(None)


class GivenUp(Exception):
    """The user did not want to wait."""
