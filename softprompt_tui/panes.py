"""Finding a pane on the one screen, whatever lies over it."""

from __future__ import annotations

from typing import Generic, TypeVar

from textual.app import App
from textual.widget import Widget

Kind = TypeVar("Kind", bound=Widget)


class Pane(Generic[Kind]):
    """An attribute of the application: its one widget of a kind. Raises NoMatches while the panes are not there."""

    def __init__(self, kind: type[Kind]) -> None:
        self.kind = kind

    def __get__(self, app: App[None], _: type) -> Kind:
        return app.screen_stack[0].query_one(self.kind)
