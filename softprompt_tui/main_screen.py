"""The one screen: its panes, the focus, and which message repaints which pane."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from softprompt.worker.summary import ENDED
from softprompt_tui import messages as m
from softprompt_tui.bindings import PANE_ACTIONS, PANES
from softprompt_tui.controllers.detail import DetailController
from softprompt_tui.controllers.hard_readout import LATER, HardReadoutController
from softprompt_tui.controllers.library import LibraryController
from softprompt_tui.controllers.live_queries import Counted, LiveQueries
from softprompt_tui.controllers.quit import keep_draft
from softprompt_tui.controllers.runs import RunsController
from softprompt_tui.controllers.sweep import SweepController
from softprompt_tui.controllers.transfer import TransferController
from softprompt_tui.messages import OnEntry, OnRun
from softprompt_tui.state.settings import PAINT_EVERY, USUAL_MODEL, Form
from softprompt_tui.widgets.composition import ComposePane
from softprompt_tui.widgets.detail import DetailPane
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.library import LibraryPane
from softprompt_tui.widgets.loss import LossPane
from softprompt_tui.widgets.pane import Pane, titled
from softprompt_tui.widgets.prompt import PromptPane
from softprompt_tui.widgets.readout import ReadoutPane
from softprompt_tui.widgets.runs import RunsPane
from softprompt_tui.widgets.title import TitleLine

if TYPE_CHECKING:
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.screens.loss_plot import PlotScreen
    from softprompt_tui.state.draft import Draft
    from softprompt_tui.widgets.readout import Readout

ROWS_EVERY = 1.0  # seconds between two drawings of the list of runs while something trains
CHANGES_EVERY = 0.25  # seconds between two drawings while runs change: thousands may at once
SWEEP_EVERY = 2 * PAINT_EVERY  # table and plot are several times what a curve's figures are
NARROW = 72  # columns under which the panes lie over each other
HUGE = 170  # columns from which library, compose and runs stand side by side
BELOW = {"library": ("F4", "Library"), "compose": ("F5", "Compose"), "runs": ("F6", "Runs")}
_DOWN = {"starting": "starting the worker", "gone": "no worker: ctrl+r starts it", "": ""}


class Painter:
    """Paints soon, and at most once in a while, however often it is asked to."""

    def __init__(self, screen: MainScreen, paint: Callable[[], None], least: float = 0.01) -> None:
        self.screen, self._paint, self.least = screen, paint, least
        self._painted_at = self._due_at = 0.0

    def ask(self, every: float) -> None:
        """Paint when so many seconds have passed since the last time."""
        self.within(max(self.least, self._painted_at + every - time.monotonic()))

    def within(self, seconds: float) -> None:
        """Paint in so many seconds, or before, where that is due already."""
        if not seconds:
            self.paint()
            return
        due = time.monotonic() + seconds
        if not self._due_at or self._due_at > due:
            self._due_at = due
            self.screen.set_timer(seconds, self._paint_due)

    def paint(self) -> None:
        self._due_at, self._painted_at = 0.0, time.monotonic()
        self._paint()

    def _paint_due(self) -> None:
        if self._due_at:  # else it has been painted meanwhile
            self.paint()


class MainScreen(Screen[None]):
    """Holds the panes and the controllers. A message is handled here alone: controllers know no pane, and panes no controller."""

    BINDINGS: ClassVar[list[BindingType]] = PANES

    title_line = Pane(TitleLine)
    prompt_pane = Pane(PromptPane)
    loss = Pane(LossPane)
    readout = Pane(ReadoutPane)
    detail_pane = Pane(DetailPane)
    library_pane = Pane(LibraryPane)
    compose_pane = Pane(ComposePane)
    runs_pane = Pane(RunsPane)

    def __init__(self, context: AppContext, draft: Draft) -> None:
        super().__init__()
        self.context, self.draft = context, draft
        self.settings, self.store, self.worker = context.settings, context.runs, context.worker
        self.runs = RunsController(context, lambda: self.detail.run)
        self.detail = DetailController(context)
        self.library = LibraryController(context, TransferController(context))
        self.library.listed_revision = lambda entry: self.library_pane.revision_of(entry)
        self.sweep = SweepController(context, self.runs.submit)
        self.hard = HardReadoutController(context, self.runs.submit_job)
        self.queries = LiveQueries(context)
        self.below = self.settings.pane if self.settings.pane in BELOW else "library"
        self._gone = False  # the worker was, since its last list
        self._composed_on = ("", "")
        self._list_is_stale = False
        self._plot: PlotScreen | None = None
        self._painted_readout: tuple[Readout | None, str] | None = None
        self._list_painter = Painter(
            self, self._paint_list, least=0.0
        )  # at once: the next key acts on what stands there
        self._detail_painter = Painter(self, self._paint_followed)
        self._sweep_painter = Painter(self, self.sweep.paint)

    def compose(self) -> ComposeResult:
        settings, library = self.settings, self.context.library
        yield TitleLine()
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield PromptPane(settings.prompt, settings.train, settings.prompts)
                yield ComposePane(library, settings.compose)
                yield LibraryPane(library, settings.sort)
                yield RunsPane()
            with Vertical(id="right"):
                yield LossPane()
                yield ReadoutPane()
                yield DetailPane()
        yield KeyBar()

    def on_mount(self) -> None:
        self._show_below(self.below)
        self.prompt_pane.editor.focus()
        self.show_title()
        self.count()
        self.queries.list_models(self.prompt_pane.offer_models)
        self.set_interval(3.0, self.library.watch)

    @property
    def form(self) -> Form:
        """What is typed."""
        return Form(self.prompt_pane.prompt, self.prompt_pane.fields)

    def remember(self) -> None:
        """Put what is typed and chosen into the settings."""
        pane, settings = self.prompt_pane, self.settings
        settings.pane, settings.sort = self.below, self.library_pane.order
        settings.prompt, settings.train, settings.compose = pane.editor.text, pane.fields, self.compose_pane.composition

    # room

    def _show_below(self, name: str) -> None:
        self.below = name
        tabs = "  ".join(titled(key, words, f"pane('{one}')", one == name) for one, (key, words) in BELOW.items())
        for one, (key, words) in BELOW.items():
            pane = self.query_one(f"#{one}")
            pane.display = one == name or self.has_room_for_all
            pane.border_title = titled(key, words, f"pane('{one}')") if self.has_room_for_all else tabs

    @property
    def has_room_for_all(self) -> bool:
        return self.size.width >= HUGE

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self._show_below(self.below))  # a key may choose another pane meanwhile
        self._make_room()
        self.query_one(KeyBar).compact = self.size.width < NARROW

    def on_descendant_focus(self) -> None:
        self._make_room()

    def _make_room(self) -> None:
        """On a narrow terminal the prompt is low while one does something else, and the readout while one does not read it."""
        # only there: a class of the screen restyles all of its 70 widgets
        narrow = self.size.width < NARROW
        self.set_class(narrow and self.prompt_pane.has_focus_within, "-writing")
        self.set_class(narrow and self.readout.has_focus, "-reading")

    @property
    def is_on_top(self) -> bool:
        return self.app.screen is self

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """While something lies over the panes, its own keys hold: nothing under it is reached unseen, nor named in the last line."""
        return self.is_on_top or action not in PANE_ACTIONS

    def action_pane(self, name: str) -> None:
        if name in ("prompt", "readout"):
            self.set_focus(self.prompt_pane.editor if name == "prompt" else self.readout)
            return
        self._show_below(name)
        if name == "runs":
            self._show_list()
        focus = {
            "library": self.library_pane.table,
            "runs": self.runs_pane.table,
            "compose": self.compose_pane.query_one("#composition"),
        }
        self.set_focus(focus[name])  # at once: what is typed next is meant for it

    def show_title(self) -> None:
        going, waiting, state = self.store.count("running"), self.store.count("queued"), self.worker.state
        words = _DOWN.get(state, "") if state != "up" else "training" if going else "worker ready"
        opened = f"open: {self.library.opened_name}" if self.library.opened else ""
        tone = "accent" if going else "success" if state == "up" else "error" if state == "gone" else "warning"
        self.title_line.show(tone, words, f"{waiting} waiting" if waiting else "", opened)

    # the worker

    @on(m.LinkChanged)
    def _link_changed(self, event: m.LinkChanged) -> None:
        self._gone = self._gone or event.state == "gone"
        if event.state == "gone" and event.why:
            self.app.clear_notifications()  # the one before says why the try before failed
            self.context.show_status(
                f"{event.why}. What it trained is kept; ctrl+r starts it again", "error", stays=True
            )
        elif event.state == "starting" and event.why:
            self.context.show_status(event.why)
        self.show_title()

    @on(m.RunsListed)
    def _listed(self, event: m.RunsListed) -> None:
        if self._gone:  # what was said of that is over
            self.app.clear_notifications()
        self._gone = False
        self._list_painter.paint()
        self.detail.changed()
        if event.going:
            self.detail.run = ""
            self.detail.show_run(event.going)
        if (self.form.fields["model"] or USUAL_MODEL).lower() == USUAL_MODEL:
            self.queries.warm(self.form.fields["device"])
        self.ask_composed()

    @on(m.RunsChanged)
    def _show_list(self) -> None:
        """Draw the list: now, or soon when it was drawn a moment ago."""
        self._list_is_stale = True
        self._list_painter.ask(CHANGES_EVERY)

    def paint_due(self) -> bool:
        """Draw the list of runs now, where it has others by now; whether it was."""
        if is_due := self._list_is_stale and self.runs_pane.display:
            self._list_painter.paint()
        return is_due

    def _paint_list(self) -> None:
        self._list_is_stale = False
        self.runs_pane.show(self.store.in_order())
        self.show_title()
        self.detail.queue_moved()
        self.sweep.queue_moved()

    @on(m.RunChanged)
    def _run_changed(self, event: m.RunChanged) -> None:
        run, before = event.run, event.before
        self._show_list()
        if event.is_next:
            self.detail.show_run(run.id)
        self.detail.told(run)
        self.sweep.changed(run.id)
        if run.state in ENDED and before is not None and before.state not in ENDED:
            self._tell_end(run)

    def _tell_end(self, run: RunSummary) -> None:
        if run.state == "failed":
            self.context.show_status(f"{run.called} failed: {run.error}", "error")
        elif run.kind == "sweep":
            if run.results and not self.sweep.is_open(run.id):
                ended = "stopped" if run.state == "stopped" else "done"
                self.context.show_status(
                    f"sweep {ended}: enter in runs (F6) shows it and keeps what is chosen. {run.called}"
                )
        elif run.entry:
            found = "has a hard readout" if run.kind == "hard" else "is in the library"
            similarity = "" if run.best_similarity is None else f", similarity {run.best_similarity:.4f}"
            self.context.show_status(f"{run.called} {found}{similarity}")
            self.context.post(m.LibraryChanged(run.entry, by_hand=False))

    @on(m.RunReported)
    def _reported(self, event: m.RunReported) -> None:
        if event.report.run not in self.store.known:  # it has been dropped meanwhile
            return
        self.detail.report(event.report)
        self.sweep.changed(event.report.run)
        if self.runs_pane.display:
            self._list_painter.within(ROWS_EVERY)

    @on(m.RunSubmitted)
    def _submitted(self, event: m.RunSubmitted) -> None:
        if event.is_next:
            self.detail.show_run(event.run)

    @on(m.RunAction)
    def _act_on_run(self, event: m.RunAction) -> None:
        run = self.store.known.get(event.run)
        if run is None:
            return
        match event.action:
            case OnRun.SHOW:
                self.detail.show_run(run.id)
                if run.kind == "sweep":
                    self.sweep.open(run.id)
            case OnRun.HARDEN if run.entry:
                self._harden(run.entry)
            case OnRun.HARDEN:
                self.context.show_status(
                    "a hard readout is looked for of what is in the library: when the training is done"
                )
            case _:
                self.runs.act(event.action, run.id)

    # what is shown

    @on(m.DetailChanged)
    def _detail_changed(self, event: m.DetailChanged) -> None:
        if event.at_once:
            self._paint_detail()
        else:
            self._detail_painter.ask(PAINT_EVERY)

    def _paint_followed(self) -> None:
        self.detail.bring_up_to_date()
        self._paint_detail()

    def _paint_detail(self) -> None:
        detail, run = self.detail, self.detail.followed
        if detail.figures is None:
            self.loss.nothing()
        else:
            live = "live: " if detail.figures.is_running else ""
            self.loss.show(f"{live}{detail.title}", detail.series, detail.figures)
        painted, self._painted_readout = self._painted_readout, (detail.readout, detail.no_readout)
        if detail.readout is None:
            if painted != self._painted_readout:
                self.readout.nothing(detail.no_readout)
        elif painted is None or painted[0] is not detail.readout:  # an equal one marks no words as changed any more
            self.readout.show(detail.readout_of, detail.readout)
        if detail.read is not None:
            self.readout.show_hard(self.hard.of_entry(detail.read))
        elif run is not None:
            self.readout.show_hard(self.hard.of_run(run))
        if detail.facts is None:
            self.detail_pane.nothing()
        else:
            self.detail_pane.show(*detail.facts)
        if self._plot is not None and self._plot.is_current:
            self._plot.follow(detail.title, detail.series, detail.curves, detail.measure)

    @on(m.EntryHighlighted)
    def _highlighted(self, event: m.EntryHighlighted) -> None:
        if event.by_hand or (not self.detail.run and self.detail.entry in ("", event.entry)):
            if event.entry:
                self.detail.show_entry(event.entry)
            elif not self.detail.run:
                self.detail.show_nothing()

    @on(m.EntryShown)
    def _entry_shown(self, event: m.EntryShown) -> None:
        self.detail.show_entry(event.entry)

    @on(m.ShownEntryGone)
    def _shown_entry_gone(self, event: m.ShownEntryGone) -> None:
        if (current := self.library_pane.table.current) != event.entry:
            self._highlighted(m.EntryHighlighted(current, by_hand=False))

    def action_plot(self) -> None:
        from softprompt_tui.screens.loss_plot import (
            PlotScreen,
        )  # what lies over the panes is imported when it is asked for

        detail = self.detail
        self._plot = PlotScreen(detail.title, detail.series, detail.curves, detail.measure)
        self.app.push_screen(self._plot)

    # the prompt

    @on(m.TrainRequested)
    def action_train(self) -> None:
        self.context.spawn(partial(self.runs.train, self.form), group="train")  # who asks twice gets two

    def action_sweep(self) -> None:
        self.context.spawn(partial(self.sweep.begin, self.form), group="sweep")

    @on(m.SweepReady)
    def _sweep_ready(self, event: m.SweepReady) -> None:
        if self.is_on_top:
            self.sweep.open(event.run)

    @on(m.SweepChanged)
    def _sweep_changed(self) -> None:
        self._sweep_painter.ask(SWEEP_EVERY)

    @on(m.SweepKeepRequested)
    def _keep_asked(self, event: m.SweepKeepRequested) -> None:
        self.sweep.keep(event.run, event.numbers)

    @on(m.PromptChanged)
    def _prompt_changed(self) -> None:
        self.count()
        self._keep_draft()

    def count(self) -> None:
        self.queries.count(self.prompt_pane.editor.text, self.form.fields["model"], self._show_count)

    def _show_count(self, counted: Counted) -> None:
        self.prompt_pane.show_count(counted.tokens, len(self.settings.more), counted.syntax)
        fields = self.form.fields
        chosen = (fields["model"], fields["device"])
        if chosen != self._composed_on:  # the composition is of the chosen model too
            self._composed_on = chosen
            self.ask_composed()

    def _keep_draft(self) -> None:
        typed = (self.prompt_pane.editor.text, self.prompt_pane.fields, self.compose_pane.composition)

        async def keep() -> None:
            if trouble := await keep_draft(self.draft, *typed):
                self.log(trouble)

        self.context.spawn(keep, group="draft", exclusive=True)

    @on(m.PromptsChanged)
    def _prompts_changed(self) -> None:
        self.prompt_pane.remembered(self.settings.prompts)
        self.context.save_settings()

    @on(m.PromptFilled)
    def _filled(self, event: m.PromptFilled) -> None:
        self.settings.remember(self.prompt_pane.prompt)  # what stood there comes back with up
        self.prompt_pane.remembered(self.settings.prompts)
        self.prompt_pane.set(event.prompt, event.fields)
        self.count()
        self.prompt_pane.editor.focus()

    def action_more(self) -> None:
        self.context.spawn(self._ask_more, group="dialogs")

    async def _ask_more(self) -> None:
        from softprompt_tui.screens.training_settings import MoreScreen

        typed = await self.context.ask(MoreScreen(self.settings.more))
        if typed is not None:
            self.settings.more = typed
            self.context.save_settings()
            self.count()

    # the library

    @on(m.EntryAction)
    def _act_on_entry(self, event: m.EntryAction) -> None:
        match event.action:
            case OnEntry.HARDEN:
                self._harden(event.entries[0])
            case OnEntry.COPY_HARD:
                self.context.spawn(partial(self.hard.copy_of, event.entries[0]), group="entries")
            case _:
                self.library.act(event.action, event.entries)

    @on(m.LibraryChanged)
    def _library_changed(self, event: m.LibraryChanged) -> None:
        to = event.to if event.by_hand or not self.library_pane.table.has_focus else ""
        self.library.seen()
        self.library_pane.reload(to)
        if to and not self.detail.run:
            self.detail.entry = ""  # what the cursor comes to is shown
        else:
            self.detail.read_again()
        self.library.look_at_opened()

    @on(m.MarksSpent)
    def _marks_spent(self) -> None:
        self.library_pane.table.marked.clear()

    @on(m.OpenedChanged)
    def _opened_changed(self) -> None:
        self.show_title()
        self.ask_composed()

    # hard readouts

    def _harden(self, entry: str) -> None:
        self.hard.look_for(entry, self.form.fields["device"])

    def action_harden(self) -> None:
        if self.detail.entry_id:
            self._harden(self.detail.entry_id)
        elif self.detail.run:
            self.context.show_status(f"a hard readout {LATER}")
        else:
            self.context.show_status("nothing is shown that a hard readout could be looked for")

    def action_copy_hard(self) -> None:
        """Copies what the pane shows, be it the best so far of a search under way."""
        detail, read = self.detail, self.detail.read
        if detail.entry and (read is None or read.id != detail.entry):  # the cursor has only just come to it
            self.context.spawn(partial(self.hard.copy_of, detail.entry), group="entries")
            return
        shown = self.readout.hard
        self.hard.copy(shown.text if shown else "")

    # composing

    @on(m.CompositionChanged)
    def _composition_changed(self) -> None:
        self.ask_composed()
        self._keep_draft()

    def ask_composed(self) -> None:
        pane, fields = self.compose_pane, self.form.fields
        self.queries.compose(
            pane.composition, pane.against, fields["model"], fields["device"], self.library.opened, pane.show
        )

    @on(m.CompositionTrainRequested)
    def _composition_kept(self) -> None:
        work = partial(self.runs.train_composition, self.compose_pane.composition, self.form, self.library.opened)
        self.context.spawn(work, group="compositions")

    @on(m.CompositionExtended)
    def _composition_extended(self, event: m.CompositionExtended) -> None:
        self.compose_pane.insert(event.text)

    def action_help(self) -> None:
        from softprompt_tui.screens.help import HelpScreen, pane_of

        self.app.push_screen(HelpScreen(pane_of(self.focused)))
