"""The full loss or similarity curve on a log axis, with zoom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt_tui.rendering.curve import Point, is_plottable
from softprompt_tui.rendering.plots import plot_palette, render
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.loss import FIGURE_CLASSES, LossFigures, Styles, render_figures
from softprompt_tui.widgets.sized_text import SizedText

MIN_TITLE_CELLS = 12
ZOOMS = (1, 2, 5, 20)  # shows the last 1/n of the steps


class PlottedCurve(NamedTuple):
    """What the plot shows.

    Attributes:
        curve_noun: what the individual curves stand for, in the plural: "restarts" or "token counts".
        measure: the quantity that the curve shows, such as "loss".
        curve_labels: the label of each individual curve. Restarts have none: they are alike.
    """

    title: str
    series: Series
    figures: LossFigures = LossFigures()
    curve_noun: str = "restarts"
    measure: str = "loss"
    curve_labels: Sequence[str] = ()


class PlotScreen(ModalScreen[None]):
    """Shows a curve and its figures on the whole screen. Code that adds points to the series must call `draw`."""

    COMPONENT_CLASSES: ClassVar[set[str]] = FIGURE_CLASSES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f3,enter", "dismiss", "Back"),
        Binding("z", "zoom", "Zoom"),
        Binding("s", "similarity", "Loss/similarity"),
        Binding("f1", "app.explain('plot')", "Help", key_display="F1"),
    ]

    def __init__(self, shown: PlottedCurve) -> None:
        super().__init__()
        self.shown = shown
        self.zoom_level, self.shows_similarity = 0, False

    def compose(self) -> ComposeResult:
        yield SizedText("", id="plot", markup=False)
        yield Static("", id="plot-figures", markup=False)
        yield KeyBar()

    def on_mount(self) -> None:
        self.call_after_refresh(self.draw)
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self.draw))

    @on(SizedText.Resized)
    def _plot_resized(self) -> None:  # by the terminal, or by the lines of figures below it
        self.draw()

    def follow(self, shown: PlottedCurve) -> None:
        """Show a different curve, or the same one after more steps."""
        self.shown = shown
        self.draw()

    def draw(self) -> None:
        if not self.query("#plot"):  # not composed yet
            return
        series, figures = self.shown.series, self.shown.figures
        last = series.points[-1][0] if series.points else 0
        zoom = ZOOMS[self.zoom_level]
        first = last - last / zoom
        # 1 - similarity separates .999 from .9999 on a log axis; similarity itself would not
        curve = [
            (step, 1 - similarity if self.shows_similarity else loss) for step, loss, similarity, *_ in series.points
        ]
        best = min((point for point in curve if is_plottable(*point)), key=lambda point: point[1], default=None)
        shown = [point for point in curve if point[0] > first]
        others = (
            []
            if self.shows_similarity
            else [[point for point in restart if point[0] > first] for restart in series.restarts]
        )
        measure = "1 - similarity" if self.shows_similarity else self.shown.measure
        part = "all steps" if zoom == 1 else f"the last {'half' if zoom == 2 else f'1/{zoom}'}"
        restarts = f" of {len(others)} {self.shown.curve_noun}" if others else ""
        self._describe(f"{measure}{restarts}, {part}", best)
        plot = self.query_one("#plot", Static)
        width, height = plot.size.width - 2, plot.size.height
        text = ""
        if width > 20 and height > 4:
            text = render(
                [shown], width, height, title=measure, behind=others, palette=plot_palette(self.app.current_theme),
                behind_labels=self.shown.curve_labels, best=best if best in shown else None,
                last_step=(figures.steps or 0) if zoom == 1 else 0,
            )  # fmt: skip
        plot.update(Text.from_ansi(text) if text else "The plot needs two points.")

    def _describe(self, what: str, best: Point | None) -> None:
        """Show below the plot whose curve it is, what it shows, and the figures that the loss pane has."""
        target = self.query_one("#plot-figures", Static)
        width = max(20, target.content_size.width)
        caption = Text(sanitize(self.shown.title))
        caption.truncate(max(MIN_TITLE_CELLS, width - cell_len(what) - 3), overflow="ellipsis")
        figures = render_figures(self.shown.figures, best, width, Styles.of(self))
        target.update(caption.append(f"   {what}").append("\n" * bool(figures)).append_text(figures))

    def action_zoom(self) -> None:
        self.zoom_level = (self.zoom_level + 1) % len(ZOOMS)
        self.draw()

    def action_similarity(self) -> None:
        self.shows_similarity = not self.shows_similarity
        self.draw()
