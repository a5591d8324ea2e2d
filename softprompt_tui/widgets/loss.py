"""The loss pane: a sparkline of the loss and the latest numbers, or why a run failed and what to do."""

from __future__ import annotations

import math
from typing import ClassVar, NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widgets import Static

from softprompt.prompts.downsample import downsample
from softprompt_tui.messages import OnRun, RunAction
from softprompt_tui.rendering.failure import Failure, render_failure
from softprompt_tui.rendering.numbers import format_duration, format_number
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.pane import pane_title
from softprompt_tui.widgets.sparkline import Sparkline

FAILURE_ACTIONS = {
    "r": (OnRun.RETRY, "Try again"),
    "m": (OnRun.MODEL, "Model"),
    "v": (OnRun.DEVICE, "Device"),
    "e": (OnRun.EDIT, "Edit"),
    "l": (OnRun.LOG, "Log"),
}
COMPACT_HEIGHT = 12  # below this, the description of a failed run has no empty lines
ACTION_KEYS = {str(action): key for key, (action, _) in FAILURE_ACTIONS.items()}
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
    failure: Failure | None = None  # of a run; shown instead of the curve and the figures


class LossPane(Vertical, can_focus=True):
    """Shows the curve of the current run, or of the entry under the library cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "screen.plot", "Plot"),
        *(Binding(key, f"act('{action}')", label) for key, (action, label) in FAILURE_ACTIONS.items()),
        Binding("down,j,pagedown", "scroll_failure(1)", show=False),
        Binding("up,k,pageup", "scroll_failure(-1)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(id="loss-pane", classes="pane")
        self.border_title = pane_title("F3", "Loss", "plot")
        self._series = Series()
        self._lines = -1
        self.failure: Failure | None = None

    def compose(self) -> ComposeResult:
        yield Sparkline(id="spark")
        yield Static(PLACEHOLDER, id="figures", markup=False)
        with VerticalScroll(id="failure", can_focus=False):
            yield Static("", markup=False)

    def _show_failure(self, failure: Failure | None) -> None:
        if failure == self.failure:
            return
        self.failure = failure
        self.set_class(failure is not None, "-failed")
        self._render_failure()
        self.refresh_bindings()

    def _render_failure(self) -> None:
        if self.failure is not None:
            is_compact = self.size.height < COMPACT_HEIGHT
            self.query_one("#failure Static", Static).update(render_failure(self.failure, self.has_focus, is_compact))

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self._render_failure()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable the keys of a failed run only while one is shown, and of these only what its advice names."""
        if action == "act":
            advised = [key for key, _ in self.failure.advice] if self.failure else []
            return ACTION_KEYS[str(parameters[0])] in advised
        return action != "scroll_failure" or self.failure is not None

    def action_act(self, action: str) -> None:
        if self.failure is not None:
            self.post_message(RunAction(OnRun(action), self.failure.run))

    def action_scroll_failure(self, direction: int) -> None:
        self.query_one("#failure").scroll_relative(y=direction, animate=False)

    def show(self, title: str, series: Series, figures: LossFigures) -> None:
        self._show_failure(figures.failure)
        if figures.failure is not None:
            title = f"{figures.failure.run[:6]}  {figures.failure.ended}"
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
        spark.display = self.failure is None and max(logs, default=0.0) > low
        spark.show([log - low for log in logs])

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)
        self._render_failure()

    def clear(self) -> None:
        self.border_subtitle = ""
        self._show_failure(None)
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
