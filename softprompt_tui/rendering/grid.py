"""The two-column grid of labels and values used by details, help and dialogs."""

from __future__ import annotations

from collections.abc import Iterable

from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from softprompt_tui.rendering.sanitize import sanitize


def label_grid(rows: Iterable[tuple[str, str | Text]], style: StyleType = "dim") -> Table:
    """Return a grid with one row per label and value. Long values wrap within their column; markup is not parsed."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style=style, no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(sanitize(label)), value if isinstance(value, Text) else Text(sanitize(value)))
    return grid
