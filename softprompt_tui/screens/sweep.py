"""A sweep: what each number of soft tokens comes to, as a table and as a plot, live; what is chosen of it is kept."""

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
from softprompt_tui.rendering.numbers import duration, figure
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.rendering.sweep_table import plot, rows_of
from softprompt_tui.screens.help import HelpScreen
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.lazy_table import PAGE, Column, Table
from softprompt_tui.widgets.library import GOOD

if TYPE_CHECKING:
    from softprompt.prompts.sweep_result import SweepResult
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext

NO_PLOT = "The plot begins when there are two points to draw."
MEANWHILE = "composed: in training contexts"


def _quality(cell: str) -> str:
    return "good" if cell[:1].isdigit() and float(cell) >= GOOD else ""


def _standing(cell: str) -> str:
    return "going" if cell.endswith("knee") else "good" if cell.endswith("saved") else ""


COLUMNS = (
    Column("tokens", 8, tone=_standing),
    Column("similar", 7, right=True, tone=_quality),
    Column("composed", 8, right=True, tone=_quality),
    Column("worst", 7, right=True, from_width=44),
    Column("as text", 7, right=True, from_width=35),
    Column("readout", 0, from_width=56),
)


class SweepScreen(ModalScreen[None]):
    """Shows one `run`; who changes it calls `show`. It posts KeepAsked and RunAction. Leaving loses nothing: the run stays."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "choose", "Keep/drop"),
        Binding("a", "all", "All"),
        Binding("enter", "keep", "Save", priority=True),
        Binding("s", "stop", "Stop"),
        Binding("f1,question_mark", "help", "Help", key_display="F1", priority=True),
        Binding("escape,f7", "dismiss", "Back", key_display="esc", priority=True),
        Binding("ctrl+q", "app.leave", "Quit", show=False),
    ]

    def __init__(self, context: AppContext, run: RunSummary, waits: str) -> None:
        super().__init__()
        self.context, self.run = context, run
        self._waits = waits  # what a sweep in the queue waits for
        self.saved: dict[int, str] | None = None  # names in the library, by tokens; None until that is known
        self._news = ""
        self._rows: list[SweepResult] = []
        self._cells: list[tuple[str, tuple[str, ...]]] = []
        self._drawn: object = None
        self._proposed = False

    def compose(self) -> ComposeResult:
        yield Static("", id="sweep-title", markup=False)
        yield Static("", id="sweep-state", markup=False)
        with Horizontal(id="sweep-body"):
            yield Table(COLUMNS, id="swept")
            yield Static("", id="sweep-plot", markup=False)
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
    def _now(self) -> RunSummary:
        """The run as it is known, which may not have been painted yet."""
        return self.context.runs.known.get(self.run.id, self.run)

    def show(self, run: RunSummary, waits: str) -> None:
        """The run as it is now, and what it waits for, or ""."""
        self.run, self._waits = run, waits
        self.draw()

    def draw(self) -> None:
        """Draws what has changed."""
        run = self.run
        if not self.query("#swept"):  # it is only about to be there
            return
        self._rows = rows_of(run)
        self._update("sweep-title", Text.assemble(("Sweep ", "bold"), sanitize(run.name or run.prompt), no_wrap=True))
        self._update("sweep-state", Text(sanitize(self._news), "bold") if self._news else _state(run, self._waits))
        if run.results and self.saved is not None and not self._proposed:
            self._proposed = True  # once: who drops it has decided
            if not self.table.marked and not self.saved:
                self.table.marked = {str(row.tokens) for row in self._rows if row.knee}
                self.table.refresh()
        cells = [(str(row.tokens), self._row(row)) for row in self._rows]
        if len(cells) != self.table.total:
            self.table.reset(len(cells))
        if cells != self._cells:
            self._cells = cells
            for page in range(0, len(cells), PAGE):
                self.table.fill(page // PAGE, cells[page : page + PAGE])
        self._explain()
        self._plot()

    def _update(self, name: str, text: Text) -> None:
        target = self.query_one(f"#{name}", Static)
        if text != target.content:
            target.update(text)

    def _row(self, row: SweepResult) -> tuple[str, ...]:
        standing = "saved" if row.tokens in (self.saved or {}) else "knee" if row.knee else ""
        figures = (figure(value) for value in (row.similarity, row.composed, row.worst, row.readout_similarity))
        return (f"{row.tokens:>2} {standing}", *figures, row.readout_text or "")

    def _plot(self) -> None:
        target = self.query_one("#sweep-plot", Static)
        wanted = (self._rows, target.size)
        if wanted != self._drawn:
            self._drawn = wanted
            drawn = plot(self._rows, target.size.width, target.size.height)
            target.update(Text.from_ansi(drawn) if drawn else Text(NO_PLOT, "dim"))

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if isinstance(event, Table.Chosen):  # a second click
            self.table.toggle_mark()
        self._explain()

    def _explain(self) -> None:
        """What is known of the row under the cursor."""
        at = self.table.cursor
        if 0 <= at < len(self._rows):
            row = self._rows[at]
            self._update(
                "sweep-row",
                Text()
                if row.worst is None and not row.readout_text
                else _told(row, (self.saved or {}).get(row.tokens, "")),
            )

    # keys

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen("sweep"))

    def action_choose(self) -> None:
        self.table.toggle_mark()
        self.table.cursor += 1

    def action_all(self) -> None:
        """Marks all, or none where all are marked."""
        every = {str(row.tokens) for row in self._rows}
        self.table.marked = set() if self.table.marked == every else every
        self.table.refresh()

    def action_stop(self) -> None:
        if self._now.state not in ENDED:
            self.context.post(RunAction(OnRun.STOP, self.run.id))

    def action_keep(self) -> None:
        numbers = tuple(int(key) for key in self.table.marked)
        if not self._now.results:
            self._say("there is nothing to be kept before it is done; s stops it with the best so far")
        elif not numbers:
            self._say("nothing is marked: space marks what is to be kept")
        else:
            self.context.post(SweepKeepRequested(self.run.id, numbers))

    def answer(self, words: str, is_kept: bool) -> None:
        """What came of KeepAsked."""
        if is_kept:
            self.table.marked = set()
            self.table.refresh()
        self._say(words)

    def _say(self, words: str) -> None:
        self._news = words
        self.draw()


def _state(run: RunSummary, waits: str) -> Text:
    """How far it is, or what to do next; `waits` says what a sweep in the queue waits for."""
    state = run.state
    if state == "running" and run.step:
        speed = run.steps_per_second or 0
        left = f"  {duration((run.steps - run.step) / speed)} left" if speed else ""
        step = Text.assemble(("step ", "dim"), f"{run.step} of {run.steps}{left}", no_wrap=True)
        return step.append(f"   {MEANWHILE}", "dim")
    if state == "failed":
        return Text(sanitize(run.error), "bold red")
    if not run.results:
        words = {
            "queued": sanitize(waits),
            "running": "loading the model",
            "paused": "paused: p in runs goes on with it",
        }
        return Text(words.get(state, "stopped before there was anything to keep"), "italic")
    knee = next((row.tokens for row in run.results if row.knee), None)
    at = "" if knee is None else f"knee at {knee}: more begin to give little; "
    return Text(f"{'stopped early; ' if state == 'stopped' else ''}{at}enter saves")


def _told(row: SweepResult, name: str) -> Text:
    """What has no room in the table."""
    text = Text(f"{row.tokens} token{'s' * (row.tokens != 1)}  ")
    for label, value in (("worst", row.worst), ("without their words", row.floor)):
        if value is not None:
            text.append(f"{label} ", "dim").append(f"{value:.4f}  ")
    if name:
        text.append("saved as ", "dim").append(sanitize(name), "bold")
    if row.readout_text:
        text.append("\nas text ", "dim").append(f"{figure(row.readout_similarity)}  ").append(
            sanitize(row.readout_text[:600]), "bold"
        )
    return text
