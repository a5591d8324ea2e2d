"""What the application is to its controllers and screens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from textual.message import Message
    from textual.screen import Screen

    from softprompt.library import Library
    from softprompt_tui.services.worker import WorkerConnection
    from softprompt_tui.state.runs import RunStore
    from softprompt_tui.state.settings import Settings

Answer = TypeVar("Answer")
Severity = Literal["information", "warning", "error"]


class AppContext(Protocol):
    """What controllers work on, and how they reach the user. They never touch a pane: `post` tells the main screen what has changed."""

    library: Library
    worker: WorkerConnection
    settings: Settings
    runs: RunStore

    def show_status(self, words: str, severity: Severity = "information", stays: bool = False) -> None:
        """Tell the user something: in the first line for a while, or over the panes where it is no mere information."""
        ...

    async def ask(self, screen: Screen[Answer]) -> Answer | None:
        """Show a dialog and return its answer. Only in what `spawn` runs."""
        ...

    def show(self, screen: Screen[None], then: Callable[[], None] | None = None) -> None:
        """Show a screen until it is left; `then` is called after that."""
        ...

    def spawn(self, work: Callable[[], Awaitable[object]], group: str, exclusive: bool = False) -> None:
        """Run `work` beside everything else; with `exclusive`, what was begun in that group before is given up."""
        ...

    def post(self, message: Message) -> None:
        """Tell the main screen what has changed."""
        ...

    async def copy(self, text: str) -> str:
        """Copy `text` for the user; return where it is now, as the end of a sentence."""
        ...

    def save_settings(self) -> None:
        """Remember what is typed and chosen, also after a kill."""
        ...
