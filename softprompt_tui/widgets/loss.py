"""The loss pane: a sparkline of the loss and the latest numbers."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from softprompt.prompts.downsample import downsample
from softprompt_tui.rendering.numbers import format_duration, format_number
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.pane import pane_title
from softprompt_tui.widgets.sparkline import Sparkline

PLACEHOLDER = "Nothing is training yet.\nctrl+t trains the prompt,\nF7 sweeps 1 to 16 soft tokens."


class LossFigures(NamedTuple):
    """The figures of a curve, as far as they are known. A hard-readout search shows no loss or best similarity."""

    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    similarity: float | None = None
    best_similarity: float | None = None
    composed: float | None = None
    steps_per_second: float | None = None
    is_running: bool = False
    is_search: bool = False
    status: str = ""
    error: str = ""


class LossPane(Vertical, can_focus=True):
    """Shows the curve of the current run, or of the entry under the library cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.plot", "Plot")]

    def __init__(self) -> None:
        super().__init__(id="loss-pane", classes="pane")
        self.border_title = pane_title("F3", "Loss", "plot")
        self._series = Series()
        self._lines = -1

    def compose(self) -> ComposeResult:
        yield Sparkline(id="spark")
        yield Static(PLACEHOLDER, id="figures", markup=False)

    def show(self, title: str, series: Series, figures: LossFigures) -> None:
        if (subtitle := title.replace("[", r"\[")) != self.border_subtitle:
            self.border_subtitle = subtitle
        self._series = series
        text = _render_figures(figures, max(20, self.size.width - 4))
        lines = text.plain.count("\n")
        # a new layout redraws more than the text, so avoid it
        self.query_one("#figures", Static).update(text, layout=lines != self._lines)
        self._lines = lines
        self._draw()

    def _draw(self) -> None:
        shown = downsample(
            [(step, loss) for step, loss, *_ in self._series.points if loss > 0 and math.isfinite(loss)],
            max(8, self.size.width - 2),
        )
        logs = [math.log10(loss) for _, loss in shown]
        low = min(logs, default=0.0)
        spark = self.query_one(Sparkline)
        # hide a flat line: a search may find no better text for a long time
        spark.display = max(logs, default=0.0) > low
        spark.show([log - low for log in logs])

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def clear(self) -> None:
        self.border_subtitle = ""
        self._series = Series()
        self._draw()
        self._lines = -1
        self.query_one("#figures", Static).update(PLACEHOLDER)


def _render_figures(figures: LossFigures, width: int) -> Text:
    """Render labeled figures, wrapped to `width`."""
    cells = []
    if figures.step is not None:
        cells.append(
            (
                "round" if figures.is_search else "step",
                f"{figures.step} of {figures.steps}" if figures.steps else f"{figures.step}",
            )
        )
    numbers = (
        ("similarity", figures.similarity),
        ("best", figures.best_similarity),
        ("loss", figures.loss),
        ("composed", figures.composed),
    )
    for label, number in numbers:
        if number is not None and not (figures.is_search and label in ("best", "loss")):
            cells.append((label, format_number(number)))
    if figures.steps_per_second:
        cells.append(("speed", f"{figures.steps_per_second:.0f}/s"))
        if figures.is_running and figures.steps and figures.step is not None:
            cells.append(("left", format_duration((figures.steps - figures.step) / figures.steps_per_second)))
    text = Text()
    used = 0
    for label, value in cells:
        part = f"{label} {value}"
        if used and used + 2 + len(part) > width:
            text.append("\n")
            used = 0
        elif used:
            text.append("  ")
            used += 2
        text.append(f"{label} ", "dim").append(value, "bold" if label in ("similarity", "best") else "")
        used += len(part)
    for message, style in ((figures.status, "italic"), (figures.error, "bold red")):
        if message:
            text.append(("\n" if text else "") + sanitize(message), style)
    return text
