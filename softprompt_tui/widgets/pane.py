"""Pane titles, and access to a screen's panes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from rich.cells import cell_len
from rich.text import Text
from textual.geometry import Size
from textual.screen import Screen
from textual.widget import Widget


def pane_title(key: str, words: str, action: str, chosen: bool = True) -> str:
    """Return markup for a pane title and its key. Clicking the title does the same as pressing the key."""
    name = f"[b]{words}[/b]" if chosen else f"[$foreground-muted]{words}[/]"
    return f"[@click=screen.{action}][$accent]{key}[/] {name}[/]"


def escape_title(text: str) -> str:
    """Return a text for a pane's edge, where Textual would read its brackets as markup."""
    return text.replace("[", r"\[")


def title_with_keys(words: str, hints: Iterable[str], width: int) -> str:
    """Return markup for a pane's edge: words, then as many hints as fit. A hint is a key and what it does."""
    markup, length = escape_title(words), len(words)
    for hint in hints:
        key, _, what = hint.partition(" ")
        gap = "  " if length else ""
        if length + len(gap) + len(hint) <= width:
            markup, length = f"{markup}{gap}[$accent]{key}[/] {what}", length + len(gap) + len(hint)
    return markup


def explain_when_empty(purpose: str, items: Sequence[tuple[str, str]], size: Size) -> Text:
    """Return what an empty pane is for, or its first line and a list of items with their meanings, if all of it fits.

    Args:
        size: the cells and lines of the pane.
    """
    column = max(cell_len(item) for item, _ in items) + 2
    if size.height < len(items) + 2 or size.width < column + max(cell_len(meaning) for _, meaning in items):
        return Text(purpose)
    text = Text(purpose.partition("\n")[0]).append("\n")
    for item, meaning in items:
        text.append(f"\n{item:<{column}}", "bold").append(meaning)
    return text


WidgetT = TypeVar("WidgetT", bound=Widget)


class Pane(Generic[WidgetT]):
    """A screen attribute that returns the screen's only widget of a type. Raises NoMatches before it is mounted."""

    def __init__(self, widget_type: type[WidgetT]) -> None:
        self.widget_type = widget_type

    def __get__(self, screen: Screen[None], _: type) -> WidgetT:
        return screen.query_one(self.widget_type)
