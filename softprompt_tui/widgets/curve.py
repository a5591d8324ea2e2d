"""The loss curve in its pane. A frame sends only the cells that have changed, for slow lines."""

from __future__ import annotations

from itertools import groupby
from typing import ClassVar

from rich.segment import Segment
from rich.style import Style
from textual.color import Color as TextualColor
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from softprompt_tui.rendering.curve import BLANK, Cell, Curve, draw

SHADED_HEIGHT = 5  # lines; in fewer, two colors look like two curves


class LossCurve(Widget):
    """A curve at the size of the widget: a plot with axes, or bars where there is little room."""

    DEFAULT_CSS = """
    LossCurve { height: 1fr; color: $primary; }
    LossCurve > .curve--high { color: $secondary; }
    LossCurve > .curve--behind { color: $text-disabled; }
    LossCurve > .curve--axis { color: $text-muted; }
    LossCurve > .curve--best { color: $accent; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"curve--high", "curve--behind", "curve--axis", "curve--best"}

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: list[list[Cell]] = []
        self.curve = Curve()

    def show(self, curve: Curve) -> None:
        self.curve = curve
        before, self._lines = self._lines, draw(curve, *self.size)
        if len(before) != len(self._lines):
            self.refresh()
            return
        for y, (old, new) in enumerate(zip(before, self._lines, strict=True)):
            changed = [x for x, cells in enumerate(zip(old, new, strict=False)) if cells[0] != cells[1]]
            if len(old) != len(new):
                self.refresh(Region(0, y, self.size.width, 1))
            elif changed:
                self.refresh(Region(changed[0], y, changed[-1] - changed[0] + 1, 1))

    def on_resize(self) -> None:
        self._lines = []
        self.show(self.curve)

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        cells = self._lines[y][:width] if y < len(self._lines) else []
        segments = [
            Segment("".join(cell.char for cell in run), self._style(tone, y))
            for tone, run in groupby([*cells, *[BLANK] * (width - len(cells))], key=lambda cell: cell.tone)
        ]
        return Strip(segments, width)

    def _style(self, tone: str, y: int) -> Style:
        if tone in ("", "curve"):
            return self._curve_style(y)
        return self.rich_style + self.get_component_rich_style(f"curve--{tone}")

    def _curve_style(self, y: int) -> Style:
        """Return the color of the curve on a line: a blend of two colors if the terminal supports it."""
        low, high = self.rich_style, self.get_component_rich_style("curve--high", partial=True)
        if self.app.native_ansi_color or low.color is None or high.color is None or self.size.height < SHADED_HEIGHT:
            return low
        shade = TextualColor.from_rich_color(high.color).blend(
            TextualColor.from_rich_color(low.color), y / (self.size.height - 1)
        )
        return low + Style(color=shade.rich_color)
