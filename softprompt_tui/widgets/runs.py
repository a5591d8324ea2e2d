"""The runs pane: running, queued and finished runs, and why a run failed or is waiting."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from softprompt.errors import shorten
from softprompt.worker.summary import ENDED, RunSummary
from softprompt_tui.messages import OnRun, RunAction, RunHighlighted
from softprompt_tui.rendering.failure import brief_reason
from softprompt_tui.rendering.numbers import format_age, format_number
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.queue import describe_wait, format_state, queue_places
from softprompt_tui.widgets.lazy_table import AGE_SECONDS, OPEN, PAGE_ROWS, SHOW, Column, Row, Table
from softprompt_tui.widgets.steady_text import update_if_changed

ROOMY_HEIGHT = 20  # lines; a lower pane explains a run in one line
DETAILS = ((Column("prompt", 0),), (Column("settings", 0),))
EMPTY = "No runs.\n\nctrl+t trains the prompt above; further runs queue here."
_TONES = {"running": "going", "loading": "going", "done": "good", "failed": "bad", "unreadable": "bad"}
COLUMNS = (
    Column("state", 9, tone=lambda state: _TONES.get(state, "")),
    Column("kind", 5, from_width=33, tone=lambda kind: {"sweep": "going", "hard": "good"}.get(kind, "")),
    # the name keeps at least 16 cells
    Column("step", 9, right=True, from_width=51),
    Column("similar", 7, right=True, from_width=41),
    Column("age", 6, right=True, from_width=58),
    Column("name", 0, cut_middle=True),
)
ACTIONS = {
    "s": (OnRun.STOP, "Stop"),
    "p": (OnRun.PAUSE, "Pause"),
    "K": (OnRun.UP, "Move up"),
    "J": (OnRun.DOWN, "Move down"),
    "r": (OnRun.RETRY, "Retry"),
    "d": (OnRun.DROP, "Drop"),
    "u": (OnRun.UNDO, "Undo drop"),
    "x": (OnRun.HARDEN, "Hard readout"),
}


FOOTER_ACTIONS = (OnRun.STOP, OnRun.PAUSE, OnRun.DROP)


class RunsPane(Vertical):
    """The worker's runs, in the worker's order."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"runs--error"}
    DEFAULT_CSS = "RunsPane > .runs--error { color: $text-error; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, f"act('{action}')", label, show=action in FOOTER_ACTIONS)
        for key, (action, label) in ACTIONS.items()
    ]

    def __init__(self) -> None:
        super().__init__(id="runs", classes="pane below")
        self._runs: list[RunSummary] = []
        self._places: dict[str, int] = {}
        self._shown = ""  # id of the run that the other panes show
        self._keys = ("", "")  # state of the run under the cursor and what enter does, when the keys were shown last

    def compose(self) -> ComposeResult:
        yield Table(COLUMNS, EMPTY, "run-table", DETAILS, verb=self._verb)
        yield Static("", id="run-words", markup=False)

    def on_mount(self) -> None:
        self.set_interval(AGE_SECONDS, self._update_ages)

    def on_resize(self) -> None:
        self.call_after_refresh(self._explain)  # there is room for more or fewer words

    def _update_ages(self) -> None:
        if self.display:
            for page in self.table.visible_pages:
                self.table.update_rows(page, self._rows(page))

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    def show(self, runs: list[RunSummary]) -> None:
        """Show the runs. If the table has the focus, the cursor stays on its run; otherwise it goes to the first."""
        table, current = self.table, self.table.current
        self._runs, self._places = runs, queue_places(runs)
        cursor = next((i for i, run in enumerate(runs) if run.id == current), None) if table.has_focus else 0
        table.reset(len(runs), cursor)
        for page in {table.cursor // PAGE_ROWS, *table.visible_pages}:
            self._fill(page)
        if table.has_focus and current and cursor is None and (run := self._current_run()) is not None:
            self.post_message(RunHighlighted(run.id))  # the previous one was dropped
        active = sum(run.state in ("running", "queued") for run in runs)
        self.border_subtitle = f"{active} running or queued" if active else ""
        self._explain()

    @on(Table.PageRequested)
    def _page_requested(self, event: Table.PageRequested) -> None:
        event.stop()
        self._fill(event.page)
        self._explain()  # the cursor may have reached this row before it was loaded

    def _fill(self, page: int) -> None:
        self.table.fill(page, self._rows(page))

    def _rows(self, page: int) -> list[Row]:
        runs, now = self._runs[page * PAGE_ROWS : (page + 1) * PAGE_ROWS], datetime.now(UTC)
        return [Row(run.id, _row(run, self._places, now), _details(run)) for run in runs]

    def repaint(self) -> None:
        """Paint the words below the rows again, which keep the colors of the theme that they were painted in."""
        self._explain()

    def show_mark(self, run: str) -> None:
        """Mark the run that the other panes show."""
        if run != self._shown:
            self._shown = run
            self.table.show_mark(run)
            self._explain()

    def _verb(self) -> str:
        """Return what enter does with the run under the cursor: nothing if it is in view."""
        run = self._current_run()
        return OPEN if run and run.kind == "sweep" else SHOW if run and run.id != self._shown else ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable only what can be done with the run under the cursor."""
        if action != "act" or parameters[0] == OnRun.UNDO:  # after a drop, the list may be empty
            return True
        run = self._current_run()
        if run is None or (parameters[0] == OnRun.DROP and run.state == "running"):
            return False
        return parameters[0] not in (OnRun.STOP, OnRun.PAUSE) or run.state not in ENDED

    def _current_run(self) -> RunSummary | None:
        cursor = self.table.cursor
        return self._runs[cursor] if cursor < len(self._runs) else None

    def action_act(self, action: str) -> None:
        run = self._current_run()
        if run is not None or action == OnRun.UNDO:
            self.post_message(RunAction(OnRun(action), run.id if run else ""))

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        self._explain()
        if (run := self._current_run()) is not None:
            is_chosen = isinstance(event, Table.Chosen)
            self.post_message(RunAction(OnRun.SHOW, run.id) if is_chosen else RunHighlighted(run.id))

    def _explain(self) -> None:
        """Show in a few words why the run under the cursor failed, or what it is waiting for."""
        run = self._current_run()
        if (keys := (run.state if run else "", self._verb())) != self._keys:
            self._keys = keys
            self.refresh_bindings()  # other keys work
        words = run.error if run else ""
        style: Style | str = self.get_component_rich_style("runs--error", partial=True)
        if run and run.state == "failed":
            words = f"{brief_reason(run)}; {'F3' if run.id == self._shown else 'enter'} says more"
        if run and run.stage:
            words, style = run.stage, "dim"
        if run and run.state == "queued":
            words, style = describe_wait(run, self._runs), "dim"
        lines = 3 if self.size.height >= ROOMY_HEIGHT else 1  # the loss pane shows all of it
        target = self.query_one("#run-words", Static)
        update_if_changed(target, Text(shorten(sanitize(words), lines * max(20, self.size.width)), style))
        target.display = run is not None  # even without words, so that the rows stay where they are


def _row(run: RunSummary, place: dict[str, int], now: datetime) -> tuple[str, ...]:
    step = "-" if run.step is None else f"{run.step}/{run.steps}"
    numbers = (step, format_number(run.best_similarity), format_age(run.created, now))
    return (format_state(run, place.get(run.id)), run.kind, *numbers, run.name or run.prompt or run.error)


def _details(run: RunSummary) -> tuple[tuple[str], tuple[str]]:
    """Return the prompt, which the name may hide, and what the run computes, and where."""
    counts = run.sweep
    if run.state == "unreadable":
        return (run.error,), ("",)
    if counts:
        tokens = f"{len(counts)} token counts from {counts[0]} to {counts[-1]}, "
    else:
        tokens = "" if run.of_entry else f"{run.tokens} token{'s' * (run.tokens != 1)}, "
    return (run.prompt,), (f"{tokens}{run.steps} {'rounds' if run.of_entry else 'steps'}, {run.model} on {run.device}",)
