"""The sweep screen: live results by token count, as a table and a plot, from which the user chooses what to save."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.screen import ModalScreen
from textual.widgets import Static

from softprompt.worker.summary import ENDED
from softprompt_tui.messages import OnRun, RunAction, SweepKeepRequested
from softprompt_tui.rendering.download import LOADING
from softprompt_tui.rendering.measures import is_for_language_model
from softprompt_tui.rendering.numbers import format_duration, format_number
from softprompt_tui.rendering.plots import plot_palette
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.rendering.sweep_table import plot_sweep, sweep_measures, sweep_rows
from softprompt_tui.screens.help import HelpScreen
from softprompt_tui.screens.words import WordsScreen
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.lazy_table import PAGE_ROWS, Column, Row, Table
from softprompt_tui.widgets.library import GOOD_SIMILARITY
from softprompt_tui.widgets.sized_text import SizedText
from softprompt_tui.widgets.steady_text import update_if_changed

if TYPE_CHECKING:
    from softprompt.prompts.sweep_result import SweepResult
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext

NO_PLOT = "The plot needs two points."
LIVE_NOTE = "composed: in training contexts"


def _similarity_tone(cell: str) -> str:
    return "good" if cell[:1].isdigit() and float(cell) >= GOOD_SIMILARITY else ""


def _status_tone(cell: str) -> str:
    return "going" if cell.endswith("knee") else "good" if cell.endswith("saved") else ""


def _columns(objective: str) -> tuple[Column, ...]:
    figures = (
        Column(
            measure.label, max(7, len(measure.label)), right=True, from_width=measure.from_width,
            tone=_similarity_tone if measure.is_share and not measure.from_width else None,
        )
        for measure in sweep_measures(objective)
    )  # fmt: skip
    return (Column("tokens", 8, tone=_status_tone), *figures, Column("readout", 0, from_width=56))


class SweepScreen(ModalScreen[None]):
    """Shows the sweep `run`. The controller calls `show` when the run changes.

    Posts SweepKeepRequested and RunAction. Closing the screen does not affect the run.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "Keep/drop"),
        Binding("a", "all", "All"),
        Binding("enter", "keep", "Save", priority=True),
        Binding("s", "stop", "Stop"),
        Binding("question_mark", "words", "Words", key_display="?"),
        Binding("f1", "help", "Help", key_display="F1", priority=True),
        Binding("escape,f7", "dismiss", "Back", key_display="esc", priority=True),
        Binding("ctrl+q", "app.leave", "Quit", show=False),
    ]

    def __init__(self, context: AppContext, run: RunSummary, waiting_for: str, plan: str = "") -> None:
        super().__init__()
        self.context, self.run = context, run
        self._plan = plan  # what the sweep does and how long that takes, shown until it has taken a step
        self._waiting_for = waiting_for  # while the run is queued
        self.saved: dict[int, str] | None = None  # names in the library by token count; None until known
        self._notice = ""
        self._rows: list[SweepResult] = []
        self._cells: list[Row] = []
        self._plotted: object = None
        self._has_marked_knee = False
        self._possible: tuple[bool | None, ...] = ()  # actions, when the keys were shown last

    def compose(self) -> ComposeResult:
        yield Static("", id="sweep-title", markup=False)
        yield Static("", id="sweep-state", markup=False)
        with Horizontal(id="sweep-body"):
            yield Table(_columns(self.run.objective), id="swept", verb=lambda: "")
            yield SizedText("", id="sweep-plot", markup=False)
        yield Static("", id="sweep-row", markup=False)
        yield KeyBar(compact=self.app.size.width < 72)

    def on_mount(self) -> None:
        self.table.focus()
        self.call_after_refresh(self.draw)

    def on_resize(self) -> None:
        self.call_after_refresh(self.draw)

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    @property
    def _latest(self) -> RunSummary:
        """The latest state of the run, even if it has not been drawn yet."""
        return self.context.runs.by_id.get(self.run.id, self.run)

    def show(self, run: RunSummary, waiting_for: str) -> None:
        """Show the run's current state. `waiting_for` describes what a queued run is waiting for."""
        self.run, self._waiting_for = run, waiting_for
        self.draw()

    def draw(self) -> None:
        """Redraw what has changed."""
        run = self.run
        if not self.query("#swept"):  # not composed yet
            return
        self._rows = sweep_rows(run)
        self._update("sweep-title", Text.assemble(("Sweep ", "bold"), sanitize(run.name or run.prompt), no_wrap=True))
        self._update(
            "sweep-state",
            Text(sanitize(self._notice), "bold")
            if self._notice
            else _describe_state(run, self._waiting_for, self._plan),
        )
        if run.results and self.saved is not None and not self._has_marked_knee:
            self._has_marked_knee = True  # only once: the user may remove the mark
            if not self.table.marked and not self.saved:
                self.table.marked = {str(row.tokens) for row in self._rows if row.knee}
                self.table.refresh()
        cells = [Row(str(row.tokens), self._row(row)) for row in self._rows]
        if len(cells) != self.table.total:
            self.table.reset(len(cells))
        if cells != self._cells:
            self._cells = cells
            for page in range(0, len(cells), PAGE_ROWS):
                self.table.fill(page // PAGE_ROWS, cells[page : page + PAGE_ROWS])
        possible = tuple(self.check_action(action, ()) for action in ("stop", "keep"))
        if possible != self._possible:
            self._possible = possible
            self.refresh_bindings()
        self._describe_current_row()
        self._plot()

    def _update(self, name: str, text: Text) -> None:
        update_if_changed(self.query_one(f"#{name}", Static), text)

    def _row(self, row: SweepResult) -> tuple[str, ...]:
        status = "saved" if row.tokens in (self.saved or {}) else "knee" if row.knee else ""
        numbers = (format_number(getattr(row, measure.field)) for measure in sweep_measures(self.run.objective))
        return (f"{row.tokens:>2} {status}", *numbers, row.readout_text or "")

    @on(SizedText.Resized)
    def _plot(self) -> None:
        target = self.query_one("#sweep-plot", Static)
        inputs = (self._rows, target.size, self.app.theme)
        if inputs != self._plotted:
            self._plotted = inputs
            plot = plot_sweep(self._rows, *target.size, plot_palette(self.app.current_theme), self.run.objective)
            target.update(Text.from_ansi(plot) if plot else Text(NO_PLOT, "dim"))

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if isinstance(event, Table.Chosen):  # a double click
            self.table.toggle_mark()
        self._describe_current_row()

    def _describe_current_row(self) -> None:
        index = self.table.cursor
        if 0 <= index < len(self._rows):
            row = self._rows[index]
            self._update(
                "sweep-row",
                Text()
                if row.worst is None and not row.readout_text
                else _describe_row(row, (self.saved or {}).get(row.tokens, "")),
            )

    # keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Disable the keys that can no longer do anything with this sweep."""
        has_ended = self._latest.state in ENDED
        if action == "stop":
            return not (has_ended or self._latest.stopping)
        return action not in ("choose", "all", "keep") or not has_ended or bool(self._latest.results)

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen("sweep"))

    def action_words(self) -> None:
        self.app.push_screen(WordsScreen("sweep"))

    def action_choose(self) -> None:
        self.table.toggle_mark()
        self.table.cursor += 1

    def action_all(self) -> None:
        """Mark all rows, or remove all marks if every row is marked."""
        all_rows = {str(row.tokens) for row in self._rows}
        self.table.marked = set() if self.table.marked == all_rows else all_rows
        self.table.refresh()

    def action_stop(self) -> None:
        self.context.post(RunAction(OnRun.STOP, self.run.id))

    def action_keep(self) -> None:
        numbers = tuple(int(key) for key in self.table.marked)
        if not self._latest.results:
            self._show_notice("nothing to save before the sweep ends; press s to end it with the best so far")
        elif not numbers:
            self._show_notice("no row is marked; press space to mark rows to save")
        else:
            self.context.post(SweepKeepRequested(self.run.id, numbers))

    def show_reply(self, message: str, is_saved: bool) -> None:
        """Show the reply to a SweepKeepRequested. Remove the marks if the rows were saved."""
        if is_saved:
            self.table.marked = set()
            self.table.refresh()
        self._show_notice(message)

    def _show_notice(self, text: str) -> None:
        self._notice = text
        self.draw()


def _describe_state(run: RunSummary, waiting_for: str, plan: str = "") -> Text:
    """Describe the sweep's progress, or what to do next."""
    state = run.state
    if state == "running" and run.step:
        speed = run.steps_per_second or 0
        left = f"  {format_duration((run.steps - run.step) / speed)} left" if speed else ""
        step = Text.assemble(("step ", "dim"), f"{run.step} of {run.steps}{left}", no_wrap=True)
        return step if is_for_language_model(run.objective) else step.append(f"   {LIVE_NOTE}", "dim")
    if state == "failed":
        return Text(sanitize(run.error), "bold red")
    if not run.results:
        messages = {
            "queued": sanitize(waiting_for),
            "running": sanitize(run.stage) or LOADING,
            "paused": "paused; p in runs resumes it",
        }
        text = Text(messages.get(state, "stopped before it had any results"), "italic")
        return text.append(f"  {plan}", "not italic dim") if plan and state in ("queued", "running") else text
    knee = next((row.tokens for row in run.results if row.knee), None)
    knee_text = "" if knee is None else f"knee at {knee}: more tokens add little; "
    return Text(f"{'stopped early; ' if state == 'stopped' else ''}{knee_text}enter saves")


def _describe_row(row: SweepResult, name: str) -> Text:
    """Describe the values that do not fit in the table."""
    text = Text(f"{row.tokens} token{'s' * (row.tokens != 1)}  ")
    for label, value in (("worst", row.worst), ("floor", row.floor)):
        if value is not None:
            text.append(f"{label} ", "dim").append(f"{format_number(value)}  ")
    if name:
        text.append("saved as ", "dim").append(sanitize(name), "bold")
    if row.readout_text:
        text.append("\nas text ", "dim").append(f"{format_number(row.readout_similarity)}  ").append(
            sanitize(row.readout_text[:600]), "bold"
        )
    return text
