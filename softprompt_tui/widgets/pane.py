"""Finding a pane on the main screen, and titling it."""

from __future__ import annotations

from typing import Generic, TypeVar

from textual.screen import Screen
from textual.widget import Widget


def titled(key: str, words: str, action: str, chosen: bool = True) -> str:
    """A pane's title with its key, as markup; a click on it does what the key does."""
    name = f"[b]{words}[/b]" if chosen else f"[dim]{words}[/dim]"
    return f"[@click=screen.{action}][$accent]{key}[/] {name}[/]"


Kind = TypeVar("Kind", bound=Widget)


class Pane(Generic[Kind]):
    """An attribute of a screen: its one widget of a kind. Raises NoMatches while the panes are not there."""

    def __init__(self, kind: type[Kind]) -> None:
        self.kind = kind

    def __get__(self, screen: Screen[None], _: type) -> Kind:
        return screen.query_one(self.kind)
