"""Runs: what trains, what waits, what is over, and why something failed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Static

from softprompt.worker.summary import RunSummary
from softprompt_tui.messages import OnRun, RunAction
from softprompt_tui.rendering.numbers import age, figure
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.queue import places, state_of, told
from softprompt_tui.widgets.lazy_table import PAGE, Column, Table

EMPTY = "No runs.\n\nctrl+t trains the prompt above; several wait for each other here."
COLUMNS = (
    Column(
        "state",
        10,
        tone=lambda state: {"running": "going", "done": "good", "failed": "bad", "unreadable": "bad"}.get(state, ""),
    ),
    Column("kind", 5, tone=lambda kind: {"sweep": "going", "hard": "good"}.get(kind, "")),
    Column("step", 11, right=True, from_width=48),
    Column("similar", 7, right=True),
    Column("age", 6, right=True, from_width=58),
    Column("name or prompt", 0),
)
ACTIONS = {
    "s": (OnRun.STOP, "Stop"),
    "p": (OnRun.PAUSE, "Pause"),
    "K": (OnRun.UP, "Earlier"),
    "J": (OnRun.DOWN, "Later"),
    "r": (OnRun.RETRY, "Retry"),
    "d": (OnRun.DROP, "Drop"),
    "x": (OnRun.HARDEN, "Hard readout"),
}


SHOWN = (OnRun.STOP, OnRun.PAUSE, OnRun.DROP)


class RunsPane(Vertical):
    """The worker's runs, in its order."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, f"act('{action}')", words, show=action in SHOWN) for key, (action, words) in ACTIONS.items()
    ]

    def __init__(self) -> None:
        super().__init__(id="runs", classes="pane below")
        self._runs: list[RunSummary] = []
        self._places: dict[str, int] = {}

    def compose(self) -> ComposeResult:
        yield Table(COLUMNS, EMPTY, id="run-table")
        yield Static("", id="run-words", markup=False)

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    def show(self, runs: list[RunSummary]) -> None:
        """The runs as they are; the cursor stays with its run."""
        table, current = self.table, self.table.current
        self._runs, self._places = runs, places(runs)
        # who is elsewhere finds it on what trains; who is here, on the run that it was on
        cursor = next((i for i, run in enumerate(runs) if run.id == current), None) if table.has_focus else 0
        table.reset(len(runs), cursor)
        for page in {table.cursor // PAGE, *table.pages_in_sight}:
            self._fill(page)
        going = sum(run.state in ("running", "queued") for run in runs)
        self.border_subtitle = f"{going} under way or waiting" if going else ""
        self._explain()

    @on(Table.PageRequested)
    def _wanted(self, event: Table.PageRequested) -> None:
        event.stop()
        self._fill(event.page)
        self._explain()  # the cursor may have come to a row before it was there

    def _fill(self, page: int) -> None:
        runs, now = self._runs[page * PAGE : (page + 1) * PAGE], datetime.now(UTC)
        self.table.fill(page, [(run.id, _row(run, self._places, now)) for run in runs])

    def action_act(self, action: str) -> None:
        if self.table.current:
            self.post_message(RunAction(OnRun(action), self.table.current))

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        self._explain()
        if isinstance(event, Table.Chosen):
            self.post_message(RunAction(OnRun.SHOW, self.table.current))

    def _explain(self) -> None:
        """Why it failed, or what it waits for."""
        run = next((one for one in self._runs if one.id == self.table.current), None)
        words = Text(sanitize(run.error), "red") if run and run.error else Text()
        if run and run.state == "queued":
            words = Text(sanitize(told(run, self._runs)), "dim")
        shown = self.query_one("#run-words", Static)
        shown.update(words)
        shown.display = bool(words)


def _row(run: RunSummary, place: dict[str, int], now: datetime) -> tuple[str, ...]:
    step = "-" if run.step is None else f"{run.step}/{run.steps}"
    figures = (step, figure(run.best_similarity), age(run.created, now))
    return (state_of(run, place.get(run.id)), run.kind, *figures, run.name or run.prompt or run.error)
