"""Labels with what stands beside them, as details, help and dialogs show them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.style import StyleType
from rich.table import Table
from rich.text import Text

from softprompt_tui.rendering.sanitize import sanitize


def labelled(rows: Iterable[tuple[str, str | Text]], style: StyleType = "dim") -> Table:
    """A row for each label and value; a value's further lines stand under its first. Nothing in them is markup."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style=style, no_wrap=True)
    grid.add_column(overflow="fold")
    for label, value in rows:
        grid.add_row(Text(sanitize(label)), value if isinstance(value, Text) else Text(sanitize(value)))
    return grid
