"""The loss pane: the curve and the latest numbers, or why a run failed and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from softprompt.prompts.downsample import downsample
from softprompt_tui.messages import OnRun, RunAction
from softprompt_tui.rendering.axes import thin_out
from softprompt_tui.rendering.curve import Curve, Point, axis_end, is_plottable
from softprompt_tui.rendering.failure import Failure, render_failure
from softprompt_tui.rendering.measures import measure_names
from softprompt_tui.rendering.numbers import format_duration, format_number, format_rate
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.series import Series
from softprompt_tui.widgets.curve import LossCurve
from softprompt_tui.widgets.pane import escape_title, explain_when_empty, pane_title, title_with_keys
from softprompt_tui.widgets.steady_text import SteadyText

FAILURE_ACTIONS = {
    "r": (OnRun.RETRY, "Try again"),
    "m": (OnRun.MODEL, "Model"),
    "v": (OnRun.DEVICE, "Device"),
    "e": (OnRun.EDIT, "Edit"),
    "l": (OnRun.LOG, "Log"),
}
COMPACT_HEIGHT = 12  # lines; a lower pane has its figures in one line, and the words of a failed run without gaps
BAR_WIDTH = 24  # cells of the bar of steps
MAX_BEHIND = 16  # restarts that are drawn; F3 shows all of them
MIN_POINTS = 40
LABELED_WIDTH = 50  # cells; a narrower pane does not name its first figure, the similarity
ACTION_KEYS = {str(action): key for key, (action, _) in FAILURE_ACTIONS.items()}
TITLE = pane_title("F3", "Loss", "plot")
WHOLE_SCREEN = title_with_keys("", ["F3 whole screen"], 80)
PLACEHOLDER = "Nothing is training yet.\nctrl+t trains the prompt,\nF7 sweeps 1 to 16 soft tokens."
FIRST_STEPS = (  # shown where there is room
    ("F2", "type a prompt that is to become a few soft tokens"),
    ("ctrl+t", "train it, and watch the loss fall here"),
    ("F7", "sweep it, to see how many tokens it needs"),
    ("F4", "find the result in the library: rename, tag, export"),
    ("F5", "use it as a word: [name] mountain view"),
    ("F1", "see all keys, and read the guides"),
)


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
    objective: str = ""  # which figures `loss` and `similarity` are
    kl_share: float | None = None  # of the floor's KL, of a language model


class Styles(NamedTuple):
    """The theme's styles of the figures."""

    bar: Style = Style()
    rest: Style = Style()
    error: Style = Style()

    @classmethod
    def of(cls, widget: Widget) -> Styles:
        """Return the styles of a widget with the component classes FIGURE_CLASSES."""
        return cls(*(widget.get_component_rich_style(f"loss--{name}", partial=True) for name in cls._fields))


FIGURE_CLASSES = {f"loss--{name}" for name in Styles._fields}


class LossPane(Vertical, can_focus=True):
    """Shows the curve of the current run, or of the entry under the library cursor."""

    COMPONENT_CLASSES: ClassVar[set[str]] = FIGURE_CLASSES
    DEFAULT_CSS = """
    LossPane > #figures.-placeholder { color: $text-muted; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "plot", "Plot"),
        *(Binding(key, f"act('{action}')", label) for key, (action, label) in FAILURE_ACTIONS.items()),
        Binding("down,j,pagedown", "scroll_failure(1)", show=False),
        Binding("up,k,pageup", "scroll_failure(-1)", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(id="loss-pane", classes="pane")
        self.border_title = TITLE
        self._series, self._figures, self._title = Series(), LossFigures(), ""
        self._curve_labels: Sequence[str] = ()
        self._curve = Curve()
        self._titled = ""
        self.failure: Failure | None = None

    def compose(self) -> ComposeResult:
        yield LossCurve(id="curve")
        yield SteadyText(id="figures", classes="-placeholder", markup=False)
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
        if action == "plot":
            return self.failure is None and not self._curve.is_flat
        return action != "scroll_failure" or self.failure is not None

    async def action_plot(self) -> None:
        await self.screen.run_action("plot")

    def action_act(self, action: str) -> None:
        if self.failure is not None:
            self.post_message(RunAction(OnRun(action), self.failure.run))

    def action_scroll_failure(self, direction: int) -> None:
        self.query_one("#failure").scroll_relative(y=direction, animate=False)

    def show(self, title: str, series: Series, figures: LossFigures, curve_labels: Sequence[str] = ()) -> None:
        """Show a curve and its figures. `curve_labels` name the individual curves, unless these are alike."""
        self._show_failure(figures.failure)
        self._series, self._figures, self._title, self._curve_labels = series, figures, title, curve_labels
        before, self._curve = self._curve, self._make_curve()
        if before.is_flat != self._curve.is_flat:
            self.refresh_bindings()  # whether there is a plot
        self._show_figures()
        self._draw()

    def _show_figures(self) -> None:
        """Show the figures below the curve, in one line if the pane is low.

        Figures on the edge of the pane would repaint all of it with every frame.
        """
        figures, width = self._figures, max(20, self.size.width)
        self._set_title(self._title)
        is_compact = self.size.height < COMPACT_HEIGHT and not self._curve.is_flat
        if figures.failure is not None:
            edge = escape_title(f"{figures.failure.run[:6]}  {figures.failure.ended}")
        else:
            edge = WHOLE_SCREEN
        if edge != self.border_subtitle:
            self.border_subtitle = edge
        styles = Styles.of(self)
        text = (
            _render_compactly(figures, width, styles)
            if is_compact
            else render_figures(figures, self._curve.best, width, styles)
        )
        shown = self.query_one("#figures", SteadyText)
        shown.remove_class("-placeholder")
        shown.display = bool(text) and figures.failure is None
        shown.show(text)

    def _set_title(self, name: str) -> None:
        if name != self._titled:  # setting it repaints the whole pane
            self._titled = name
            self.border_title = f"{TITLE}  {escape_title(name)}" if name else TITLE

    def _make_curve(self) -> Curve:
        """Return what the pane can show of the series: as many points as it has columns, and some of the restarts."""
        points = [point for point in self._series.points if is_plottable(point[0], point[1])]
        at, steps = points[-1][0] if points else 0, self._figures.steps or 0
        last = axis_end(at, steps) if self._figures.is_running and steps > at else max(at, steps)
        best = min(points, key=lambda point: point[1], default=None)  # what is kept of the run, as far as is reported
        # before the restarts are taken apart: 256 of them with 4,000 points took 1.8 s for every frame
        shown = Series(downsample(points, max(MIN_POINTS, 2 * self.size.width)))
        restarts = shown.restarts
        drawn = thin_out(restarts, MAX_BEHIND)
        behind = [[point for point in restarts[i] if is_plottable(*point)] for i in drawn]
        names = [self._curve_labels[i] for i in drawn if i < len(self._curve_labels)]
        return Curve([point[:2] for point in shown.points], behind, names, last, best[:2] if best else None)

    def _draw(self) -> None:
        widget = self.query_one(LossCurve)
        # hide a flat line: a search may find no better text for a long time
        widget.display = self.failure is None and not self._curve.is_flat
        widget.show(self._curve)

    def on_resize(self) -> None:
        if self._title:
            self._show_figures()
        else:
            self._show_placeholder()
        self.call_after_refresh(self._draw)
        self._render_failure()

    def clear(self) -> None:
        self.border_subtitle = self._title = ""
        self._set_title("")
        self._show_failure(None)
        self._series, self._figures, self._curve = Series(), LossFigures(), Curve()
        self._draw()
        self._show_placeholder()

    def _show_placeholder(self) -> None:
        """Say what the pane is for and, where there is room, what to do first."""
        shown = self.query_one("#figures", SteadyText)
        shown.display = True
        shown.add_class("-placeholder")
        shown.show(explain_when_empty(PLACEHOLDER, FIRST_STEPS, self.size))


def _render_compactly(figures: LossFigures, width: int, styles: Styles) -> Text:
    """Render as many figures as fit into one line, the most important first, and the messages."""
    text = Text(_fit_parts(_important_figures(figures, width), width))
    messages = _messages(figures, styles)
    return text.append("\n" * bool(messages)).append_text(messages)


def _important_figures(figures: LossFigures, width: int) -> list[str]:
    similarity = figures.best_similarity if figures.best_similarity is not None else figures.similarity
    parts = []
    if similarity is not None:
        is_best = figures.best_similarity is not None and not figures.is_search
        name = measure_names(figures.objective)[1]
        label = "best " if is_best else f"{name} " if width >= LABELED_WIDTH else ""
        parts.append(f"{label}{format_number(similarity)}")
    if figures.step is not None:
        parts.append(f"{figures.step}/{figures.steps}" if figures.steps else f"{figures.step} steps")
    if (left := _seconds_left(figures)) is not None:
        parts.append(f"{format_duration(left)} left")
    if figures.composed is not None:
        parts.append(f"composed {format_number(figures.composed)}")
    if figures.kl_share is not None:
        parts.append(f"{format_number(figures.kl_share)} of the floor")
    if figures.steps_per_second:
        parts.append(f"{format_rate(figures.steps_per_second)}/s")
    return parts


def _fit_parts(parts: list[str], width: int) -> str:
    """Return as many parts as fit."""
    text = ""
    for part in parts:
        longer = f"{text}  {part}" if text else part
        if len(longer) > width:
            break
        text = longer
    return text


def _seconds_left(figures: LossFigures) -> float | None:
    if not (figures.is_running and figures.steps_per_second and figures.steps and figures.step is not None):
        return None
    return (figures.steps - figures.step) / figures.steps_per_second


def render_figures(figures: LossFigures, best: Point | None, width: int, styles: Styles) -> Text:
    """Render the labeled figures, wrapped to `width`, and the messages."""
    text = Text()
    if figures.step is not None and figures.steps and figures.is_running:
        filled = round(figures.step / figures.steps * BAR_WIDTH)
        label = "round" if figures.is_search else "step"
        text.append(f"{label} ", "dim").append(f"{figures.step} of {figures.steps} ")
        text.append("━" * filled, styles.bar).append("━" * (BAR_WIDTH - filled), styles.rest)
        if figures.steps_per_second:
            text.append(f" {format_rate(figures.steps_per_second)}/s")
        if (left := _seconds_left(figures)) is not None:
            text.append(f"  {format_duration(left)} left")
        text.append("\n")
    loss, similarity = measure_names(figures.objective)
    cells = [
        (label, format_number(number))
        for label, number in (
            (similarity, figures.similarity),
            ("best", figures.best_similarity),
            (loss, figures.loss),
            ("composed", figures.composed),
            ("of the floor", figures.kl_share),
        )
        if number is not None and not (figures.is_search and label in ("best", loss))
    ]
    if best is not None and not figures.is_search:
        cells = [(label, f"{value} at step {best[0]}" if label == "best" else value) for label, value in cells]
    if not figures.is_running:
        if figures.step is not None:
            cells.append(("steps", f"{figures.step}"))
        if figures.steps_per_second:
            cells.append(("speed", f"{format_rate(figures.steps_per_second)}/s"))
    used = 0
    for label, value in cells:
        part = f"{label} {value}"
        if used and used + 2 + len(part) > width:
            text.append("\n")
            used = 0
        elif used:
            text.append("  ")
            used += 2
        text.append(f"{label} ", "dim").append(value, "bold" if label in (similarity, "best") else "")
        used += len(part)
    messages = _messages(figures, styles)
    return text.append("\n" * bool(messages and text.plain)).append_text(messages)


def _messages(figures: LossFigures, styles: Styles) -> Text:
    """Render the state and the error."""
    text = Text()
    for message, style in ((figures.status, "italic"), (figures.error, styles.error)):
        if message:
            text.append("\n" * bool(text) + sanitize(message), style)
    return text
