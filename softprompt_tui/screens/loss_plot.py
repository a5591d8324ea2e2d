"""The full loss or similarity curve on a log axis, with zoom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt_tui.rendering.plots import plot_palette, render
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.key_bar import KeyBar

ZOOMS = (1, 2, 5, 20)  # shows the last 1/n of the steps


class PlotScreen(ModalScreen[None]):
    """Shows a curve on the whole screen. Code that adds points to the series must call `draw`."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f3,enter", "dismiss", "Back"),
        Binding("z", "zoom", "Zoom"),
        Binding("s", "similarity", "Loss/similarity"),
        Binding("f1", "app.explain('plot')", "Help", key_display="F1"),
    ]

    def __init__(
        self,
        title: str,
        series: Series,
        curve_noun: str = "restarts",
        measure: str = "loss",
        curve_labels: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.caption, self.series, self.curve_noun, self.measure = title, series, curve_noun, measure
        self.curve_labels = curve_labels
        self.zoom_level, self.shows_similarity = 0, False

    def compose(self) -> ComposeResult:
        yield Static("", id="plot", markup=False)
        yield Static("", id="plot-figures", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.call_after_refresh(self.draw)
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self.draw))

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    def follow(self, title: str, series: Series, curve_noun: str, measure: str, curve_labels: Sequence[str]) -> None:
        """Show a different series.

        Args:
            curve_noun: a plural noun for the curves behind the main one, such as "restarts".
            measure: the quantity that the curve shows, such as "loss".
            curve_labels: name the curves behind the main one, unless these are alike.
        """
        self.caption, self.series, self.curve_noun, self.measure = title, series, curve_noun, measure
        self.curve_labels = curve_labels
        self.draw()

    def draw(self) -> None:
        if not self.query("#plot"):  # not composed yet
            return
        points = self.series.points
        last = points[-1][0] if points else 0
        zoom = ZOOMS[self.zoom_level]
        shown = [point for point in points if point[0] > last - last / zoom]
        plot = self.query_one("#plot", Static)
        width, height = plot.size.width - 2, plot.size.height
        # 1 - similarity separates .999 from .9999 on a log axis; similarity itself would not
        curve = [(step, 1 - similarity if self.shows_similarity else loss) for step, loss, similarity, *_ in shown]
        first = shown[0][0] if shown else 0
        others = (
            []
            if self.shows_similarity
            else [[point for point in restart if point[0] >= first] for restart in self.series.restarts]
        )
        measure = "1 - similarity" if self.shows_similarity else self.measure
        palette = plot_palette(self.app.current_theme)
        text = ""
        if width > 20 and height > 4:
            text = render(
                [curve], width, height, title=measure, behind=others, palette=palette, behind_labels=self.curve_labels
            )
        plot.update(Text.from_ansi(text) if text else "The plot needs two points.")
        part = "all steps" if zoom == 1 else f"the last {'half' if zoom == 2 else f'1/{zoom}'}"
        restarts = f" of {len(others)} {self.curve_noun}" if others else ""
        self.query_one("#plot-figures", Static).update(sanitize(f"{self.caption}   {measure}{restarts}, {part}"))

    def action_zoom(self) -> None:
        self.zoom_level = (self.zoom_level + 1) % len(ZOOMS)
        self.draw()

    def action_similarity(self) -> None:
        self.shows_similarity = not self.shows_similarity
        self.draw()
