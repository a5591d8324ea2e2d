"""The curve in full: loss on a log axis, or similarity; all of it, or its last part."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt_tui.rendering.plots import render
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.key_bar import KeyBar

ZOOMS = (1, 2, 5, 20)  # shares of the steps


class PlotScreen(ModalScreen[None]):
    """Follows the series that it was given; the application calls `draw` when that has grown."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f3,enter", "dismiss", "Back"),
        Binding("z", "zoom", "Zoom"),
        Binding("s", "similarity", "Loss/similarity"),
    ]

    def __init__(self, title: str, series: Series, curves: str = "restarts", measure: str = "loss") -> None:
        super().__init__()
        self.caption, self.series, self.curves, self.measure = title, series, curves, measure
        self.zoomed, self.similarity = 0, False

    def compose(self) -> ComposeResult:
        yield Static("", id="plot", markup=False)
        yield Static("", id="plot-figures", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.call_after_refresh(self.draw)

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def follow(self, title: str, series: Series, curves: str, measure: str) -> None:
        """Shows that curve of a `measure` from now on; several are of so many `curves`."""
        self.caption, self.series, self.curves, self.measure = title, series, curves, measure
        self.draw()

    def draw(self) -> None:
        if not self.query("#plot"):  # it is only about to be there
            return
        points = self.series.points
        last = points[-1][0] if points else 0
        share = ZOOMS[self.zoomed]
        shown = [point for point in points if point[0] > last - last / share]
        plot = self.query_one("#plot", Static)
        width, height = plot.size.width - 2, plot.size.height
        # 1 - similarity on the same log axis tells .999 from .9999, which similarity itself would not
        curve = [(step, 1 - similarity if self.similarity else loss) for step, loss, similarity, *_ in shown]
        first = shown[0][0] if shown else 0
        others = (
            [] if self.similarity else [[point for point in one if point[0] >= first] for one in self.series.restarts]
        )
        what = "1 - similarity" if self.similarity else self.measure
        text = render([curve], width, height, title=what, behind=others) if width > 20 and height > 4 else ""
        plot.update(Text.from_ansi(text) if text else "There are not two points to draw yet.")
        part = "all steps" if share == 1 else f"the last {'half' if share == 2 else f'1/{share}'}"
        restarts = f" of {len(others)} {self.curves}" if others else ""
        self.query_one("#plot-figures", Static).update(sanitize(f"{self.caption}   {what}{restarts}, {part}"))

    def action_zoom(self) -> None:
        self.zoomed = (self.zoomed + 1) % len(ZOOMS)
        self.draw()

    def action_similarity(self) -> None:
        self.similarity = not self.similarity
        self.draw()
