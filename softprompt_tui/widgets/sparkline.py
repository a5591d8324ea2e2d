"""A sparkline of any height.

Each screen line has a single color, so that a frame costs hundreds of bytes over a slow connection, not thousands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.color import Color as TextualColor
from textual.strip import Strip
from textual.widget import Widget

BLOCKS = " ▁▂▃▄▅▆▇█"


class Sparkline(Widget):
    """A bar chart of non-negative values, scaled to the widget's height. Repaints only if a row has changed."""

    DEFAULT_CSS = """
    Sparkline { height: 1fr; color: $primary; }
    Sparkline > .sparkline--high { color: $secondary; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"sparkline--high"}

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: list[str] = []
        self._data: Sequence[float] = ()

    def show(self, data: Sequence[float]) -> None:
        """Show `data`, which must be finite."""
        self._data = data
        rows = block_rows(data, self.size.width, self.size.height)
        if rows != self._rows:
            self._rows = rows
            self.refresh()

    def on_resize(self) -> None:
        self.show(self._data)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        text = self._rows[y] if y < len(self._rows) else ""
        return Strip([Segment(text[:width].ljust(width), self._style_at(y))], width)

    def _style_at(self, y: int) -> Style:
        """Return the color of a line: a blend of the high and low colors if the terminal supports it."""
        low, high = self.rich_style, self.get_component_rich_style("sparkline--high", partial=True)
        if self.app.native_ansi_color or low.color is None or high.color is None or self.size.height < 2:
            return low
        shade = TextualColor.from_rich_color(high.color).blend(
            TextualColor.from_rich_color(low.color), y / (self.size.height - 1)
        )
        return low + Style(color=shade.rich_color)


def block_rows(data: Sequence[float], width: int, height: int) -> list[str]:
    """Return `height` lines of block characters, or no lines if there are fewer than two values."""
    if len(data) < 2 or width < 1 or height < 1:
        return []
    highest = max(data) or 1.0
    values = [data[column * len(data) // width] for column in range(width)]
    eighths = [1 + round(value / highest * (height * 8 - 1)) for value in values]
    return ["".join(BLOCKS[max(0, min(8, level - 8 * row))] for level in eighths) for row in reversed(range(height))]
