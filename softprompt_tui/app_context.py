"""The part of the application that controllers and screens may use."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from textual.message import Message
    from textual.screen import Screen

    from softprompt.library import Library
    from softprompt_tui.services.line_speed import LineSpeed
    from softprompt_tui.services.worker import WorkerConnection
    from softprompt_tui.state.runs import RunStore
    from softprompt_tui.state.settings import Settings

Answer = TypeVar("Answer")
Severity = Literal["information", "warning", "error"]


class AppContext(Protocol):
    """Shared data, and methods for interacting with the user.

    Controllers never touch a pane. When something changes, they `post` a message to the main screen.
    """

    library: Library
    worker: WorkerConnection
    settings: Settings
    runs: RunStore
    line: LineSpeed

    def show_status(
        self, text: str, severity: Severity = "information", persistent: bool = False, *, name: str = ""
    ) -> None:
        """Show a message to the user.

        Args:
            persistent: a warning or error stays until the user dismisses it.
            name: the part of the text that may lose its middle where the text does not fit.
        """
        ...

    async def ask(self, screen: Screen[Answer]) -> Answer | None:
        """Show a dialog and return the answer. Call this only in work started by `spawn`."""
        ...

    def show(self, screen: Screen[None], then: Callable[[], None] | None = None) -> None:
        """Show a screen. Call `then` when the user leaves it."""
        ...

    def spawn(self, work: Callable[[], Awaitable[object]], group: str, exclusive: bool = False) -> None:
        """Run `work` in the background. `exclusive` cancels earlier work in the same group."""
        ...

    def post(self, message: Message) -> None:
        """Post a message to the main screen."""
        ...

    async def copy(self, text: str) -> str:
        """Copy `text` to the clipboard. Return a phrase such as "was sent to the terminal's clipboard"."""
        ...

    def notify_terminal(self, text: str) -> None:
        """Notify the user outside the interface, in the way that the settings say."""
        ...

    def save_settings(self) -> None:
        """Save the settings durably."""
        ...
