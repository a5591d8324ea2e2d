"""The loss: a sparkline that is always there, and the figures beside it."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from softprompt.prompts.downsample import downsample
from softprompt_tui.rendering.numbers import duration, figure
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.pane import titled
from softprompt_tui.widgets.sparkline import Spark

NOTHING = "Nothing trains yet.\nctrl+t trains the prompt,\nF7 with 1 to 16 soft tokens at once."


class LossFigures(NamedTuple):
    """What stands beside a curve, as far as it is known. Of a search for a hard readout only the best so far is told."""

    step: int | None = None
    steps: int | None = None
    loss: float | None = None
    similarity: float | None = None
    best_similarity: float | None = None
    composed: float | None = None
    steps_per_second: float | None = None
    is_running: bool = False
    is_search: bool = False
    words: str = ""
    error: str = ""


class LossPane(Vertical, can_focus=True):
    """Shows one curve: of the run under way, or of what the library's cursor is on."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.plot", "Plot")]

    def __init__(self) -> None:
        super().__init__(id="loss-pane", classes="pane")
        self.border_title = titled("F3", "Loss", "plot")
        self._series = Series()
        self._lines = -1

    def compose(self) -> ComposeResult:
        yield Spark(id="spark")
        yield Static(NOTHING, id="figures", markup=False)

    def show(self, title: str, series: Series, figures: LossFigures) -> None:
        if (subtitle := title.replace("[", r"\[")) != self.border_subtitle:
            self.border_subtitle = subtitle
        self._series = series
        text = _drawn(figures, max(20, self.size.width - 4))
        lines = text.plain.count("\n")
        self.query_one("#figures", Static).update(
            text, layout=lines != self._lines
        )  # laying out redraws more than the text
        self._lines = lines
        self._draw()

    def _draw(self) -> None:
        shown = downsample(
            [(step, loss) for step, loss, *_ in self._series.points if loss > 0 and math.isfinite(loss)],
            max(8, self.size.width - 2),
        )
        logs = [math.log10(loss) for _, loss in shown]
        low = min(logs, default=0.0)
        spark = self.query_one(Spark)
        spark.display = (
            max(logs, default=0.0) > low
        )  # a level line says nothing: a search may find no better text for long
        spark.show([log - low for log in logs])

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def nothing(self) -> None:
        self.border_subtitle = ""
        self._series = Series()
        self._draw()
        self._lines = -1
        self.query_one("#figures", Static).update(NOTHING)


def _drawn(f: LossFigures, width: int) -> Text:
    """As many lines as it takes, a label and a figure in each cell of a grid."""
    cells = []
    if f.step is not None:
        cells.append(("round" if f.is_search else "step", f"{f.step} of {f.steps}" if f.steps else f"{f.step}"))
    each = (("similarity", f.similarity), ("best", f.best_similarity), ("loss", f.loss), ("composed", f.composed))
    for label, known in each:
        if known is not None and not (f.is_search and label in ("best", "loss")):
            cells.append((label, figure(known)))
    if f.steps_per_second:
        cells.append(("speed", f"{f.steps_per_second:.0f}/s"))
        if f.is_running and f.steps and f.step is not None:
            cells.append(("left", duration((f.steps - f.step) / f.steps_per_second)))
    text = Text()
    taken = 0
    for label, value in cells:
        part = f"{label} {value}"
        if taken and taken + 2 + len(part) > width:
            text.append("\n")
            taken = 0
        elif taken:
            text.append("  ")
            taken += 2
        text.append(f"{label} ", "dim").append(value, "bold" if label in ("similarity", "best") else "")
        taken += len(part)
    for words, style in ((f.words, "italic"), (f.error, "bold red")):
        if words:
            text.append(("\n" if text else "") + sanitize(words), style)
    return text
