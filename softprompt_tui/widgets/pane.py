"""Finding a pane on the one screen, whatever lies over it."""

from __future__ import annotations

from typing import Generic, TypeVar

from textual.app import App
from textual.widget import Widget


def titled(key: str, words: str, action: str, chosen: bool = True) -> str:
    """A pane's title with its key, as markup; a click on it does what the key does."""
    name = f"[b]{words}[/b]" if chosen else f"[dim]{words}[/dim]"
    return f"[@click=app.{action}][$accent]{key}[/] {name}[/]"


Kind = TypeVar("Kind", bound=Widget)


class Pane(Generic[Kind]):
    """An attribute of the application: its one widget of a kind. Raises NoMatches while the panes are not there."""

    def __init__(self, kind: type[Kind]) -> None:
        self.kind = kind

    def __get__(self, app: App[None], _: type) -> Kind:
        return app.screen_stack[0].query_one(self.kind)
