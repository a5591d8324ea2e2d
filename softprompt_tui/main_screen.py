"""The main screen: its panes, the focus, and the message handlers that repaint the panes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widgets import Input, TextArea

from softprompt.errors import without_stop
from softprompt.worker.summary import ENDED
from softprompt_tui import messages as m
from softprompt_tui.bindings import MAIN_BINDINGS, PANE_ACTIONS
from softprompt_tui.controllers.announcements import AnnouncementsController
from softprompt_tui.controllers.bell import BellController
from softprompt_tui.controllers.detail import DetailController
from softprompt_tui.controllers.devices import DevicesController
from softprompt_tui.controllers.hard_readout import AFTER_TRAINING, HardReadoutController, can_search
from softprompt_tui.controllers.library import LibraryController
from softprompt_tui.controllers.live_queries import LiveQueries, PromptCount
from softprompt_tui.controllers.models import ModelsController
from softprompt_tui.controllers.quit import save_draft
from softprompt_tui.controllers.runs import RunsController
from softprompt_tui.controllers.sweep import SweepController
from softprompt_tui.controllers.transfer import TransferController
from softprompt_tui.messages import OnEntry, OnRun
from softprompt_tui.painter import Painter
from softprompt_tui.rendering.curve import is_plottable
from softprompt_tui.rendering.devices import describe_load
from softprompt_tui.state.fields import changed_settings
from softprompt_tui.state.settings import DEFAULT_MODEL, PAINT_SECONDS, Form
from softprompt_tui.widgets.composition import ComposePane
from softprompt_tui.widgets.detail import DetailPane
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.library import LibraryPane
from softprompt_tui.widgets.loss import LossFigures, LossPane
from softprompt_tui.widgets.pane import Pane, pane_title
from softprompt_tui.widgets.prompt import PromptPane
from softprompt_tui.widgets.readout import ReadoutPane
from softprompt_tui.widgets.runs import RunsPane
from softprompt_tui.widgets.sized_text import SizedText
from softprompt_tui.widgets.title import TitleLine

if TYPE_CHECKING:
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.screens.loss_plot import PlotScreen, PlottedCurve
    from softprompt_tui.state.draft import Draft
    from softprompt_tui.widgets.readout import Readout

REPORT_SECONDS = 1.0  # progress reports repaint the list of runs within this time
LIST_SECONDS = 0.25  # between repaints of the list while runs are changing, possibly thousands at once
MODELS_SECONDS = 0.25  # a download shows at least two updates a second
SWEEP_SECONDS = 2 * PAINT_SECONDS  # painting the table and plot takes several times as long as the loss pane
NARROW_COLUMNS = 72  # below this width, the panes are stacked
HUGE_COLUMNS = 170  # from this width on, library, compose and runs are side by side, with the details below them
PROMPT_LINES = 11  # on a terminal where the details are below the lists
MIN_PLOT_POINTS = 2
LOWER_PANES = {"library": ("F4", "Library"), "compose": ("F5", "Compose"), "runs": ("F6", "Runs")}
STOPPABLE_STATES = ("running", "queued", "paused")
_WORKER_STATUS = {"starting": "starting the worker", "gone": "no worker: ctrl+r starts one", "": ""}


class MainScreen(Screen[None]):
    """Connects the panes to the controllers.

    Only this class handles messages: controllers and panes know nothing about each other.
    """

    BINDINGS: ClassVar[list[BindingType]] = MAIN_BINDINGS

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
        self.bell = BellController(context)
        self.announcements = AnnouncementsController(context, lambda run: self.sweep.is_open(run))
        self.devices = DevicesController(context, lambda: bool(self.store.count("running")))
        self.library = LibraryController(context, TransferController(context))
        self.library.listed_revision = lambda entry: self.library_pane.revision_of(entry)
        self.sweep = SweepController(context, self.runs.submit)
        self.hard = HardReadoutController(context, self.runs.submit_job)
        self.models = ModelsController(context, lambda: self.form.fields["model"] or DEFAULT_MODEL)
        self.queries = LiveQueries(context)
        self.lower_pane = self.settings.pane if self.settings.pane in LOWER_PANES else "library"
        self._was_disconnected = False  # the connection has been lost since the last list of runs
        self._measured_on = ("", "")  # model and device with which the composition was last measured
        self._has_stage = False  # whether the title line may show a stage of loading
        self._list_is_stale = False
        self._possible: tuple[bool | None, ...] = ()
        self._lower_layout = ("", False, False)
        self._has_resumed = False
        self._detail_lines = 0  # height of the details below the lists, or 0 if not set
        self._plot: PlotScreen | None = None
        self._painted_readout: tuple[Readout | None, str] | None = None
        # no delay, because the next key acts on the list that the screen shows
        self._list_painter = Painter(self, context.line, self._paint_list, min_delay=0.0)
        self._detail_painter = Painter(self, context.line, self._paint_followed)
        self._sweep_painter = Painter(self, context.line, self.sweep.paint)
        self._models_painter = Painter(self, context.line, self._paint_models)

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.ScreenResume) and not self._has_resumed:
            self._has_resumed = True
            event.refresh_styles = False  # the widgets have just been styled; this takes a tenth of the start
        await super().on_event(event)

    def _set_first_size_classes(self) -> None:
        """Set the classes of the terminal's size before the widgets are styled, so that they are styled only once."""
        size = self.app.size
        for breakpoints, cells in (
            (self.app.HORIZONTAL_BREAKPOINTS or [], size.width),
            (self.app.VERTICAL_BREAKPOINTS or [], size.height),
        ):
            reached = [name for start, name in breakpoints if start <= cells]
            self.update_classes({name: name == reached[-1] for _, name in breakpoints}, update=False)

    def compose(self) -> ComposeResult:
        self._set_first_size_classes()
        settings, library = self.settings, self.context.library
        has_room_for_all = self.app.size.width >= HUGE_COLUMNS
        yield TitleLine()
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield PromptPane(settings.prompt, settings.train, settings.prompts)
                yield ComposePane(library, settings.compose)
                yield LibraryPane(library, settings.sort)
                yield RunsPane()
                if has_room_for_all:
                    yield DetailPane()
            with Vertical(id="right"):
                yield LossPane()
                yield ReadoutPane()
                if not has_room_for_all:
                    yield DetailPane()
        yield KeyBar()

    def on_mount(self) -> None:
        self._show_lower_pane(self.lower_pane)
        self.prompt_pane.editor.focus()
        self.show_title()
        self.set_interval(3.0, self.library.check_for_changes)
        self.app.theme_changed_signal.subscribe(self, lambda _: self.call_after_refresh(self._repaint_theme))

    def start_queries(self) -> None:
        """Ask for what the first paint need not wait for."""
        self.count()
        self.queries.list_models(self.prompt_pane.offer_models)

    @property
    def form(self) -> Form:
        """The prompt and fields as typed."""
        return Form(self.prompt_pane.prompt, self.prompt_pane.fields)

    def update_settings(self) -> None:
        """Copy the typed text, the visible pane and the sort order into the settings."""
        pane, settings = self.prompt_pane, self.settings
        settings.pane, settings.sort = self.lower_pane, self.library_pane.order
        settings.prompt, settings.train, settings.compose = pane.editor.text, pane.fields, self.compose_pane.composition

    # layout

    def _show_lower_pane(self, name: str) -> None:
        self.lower_pane = name
        if (layout := (name, self.has_room_for_all, self.library_pane.shows_trash)) == self._lower_layout:
            return  # a new border title would repaint the pane
        self._lower_layout = layout
        panes = LOWER_PANES | ({"library": ("F4", "Trash")} if self.library_pane.shows_trash else {})
        tabs = "  ".join(
            pane_title(key, title, f"pane('{other}')", other == name) for other, (key, title) in panes.items()
        )
        for other, (key, title) in panes.items():
            pane = self.query_one(f"#{other}")
            pane.display = other == name or self.has_room_for_all
            pane.border_title = pane_title(key, title, f"pane('{other}')") if self.has_room_for_all else tabs

    @property
    def has_room_for_all(self) -> bool:
        return self.size.width >= HUGE_COLUMNS

    async def _place_details(self) -> None:
        """Put the details below the lists, which seldom need all lines of a huge terminal, or below the readout."""
        parent, pane = self.query_one("#left" if self.has_room_for_all else "#right"), self.detail_pane
        if pane.parent is not parent:
            await pane.remove()
            await parent.mount(DetailPane())
            self._paint_detail()

    @on(SizedText.Resized)
    def _share_lines_with_details(self) -> None:
        """On a huge terminal, make the details as high as their text has been so far, and leave the rest to the lists.

        The height only grows, so that the lists stay where they are while the cursor moves.
        """
        left = self.query_one("#left")
        if not (self.has_room_for_all and self.detail_pane.display):
            left.styles.clear_rule("grid_rows")
            self._detail_lines = 0
            return
        lines = min(self.detail_pane.text_lines + len("╭╰"), left.size.height // 3)
        if lines > self._detail_lines:
            self._detail_lines = lines
            left.styles.grid_rows = f"{PROMPT_LINES} 1fr {lines}"

    def on_resize(self) -> None:
        self.call_after_refresh(self._place_details)
        self._detail_lines = 0  # the text wraps otherwise
        self.call_after_refresh(self._share_lines_with_details)
        # read `lower_pane` after the refresh, because a key may choose another pane before it
        self.call_after_refresh(lambda: self._show_lower_pane(self.lower_pane))
        self._update_height_classes()
        self.query_one(KeyBar).compact = self.size.width < NARROW_COLUMNS

    def on_descendant_focus(self) -> None:
        self._update_height_classes()

    def _update_height_classes(self) -> None:
        """On a narrow terminal, shrink the prompt and the readout while they do not have the focus."""
        # only on a narrow terminal, because changing a class of the screen restyles all 70 widgets
        narrow = self.size.width < NARROW_COLUMNS
        self.set_class(narrow and self.prompt_pane.has_focus_within, "-writing")
        self.set_class(narrow and self.readout.has_focus, "-reading")

    @property
    def is_on_top(self) -> bool:
        return self.app.screen is self

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """Disable the keys of the panes while another screen covers them."""
        if not self.is_on_top and action in PANE_ACTIONS:
            return False
        match action:
            case "stop_run":
                return self._stoppable_run() is not None
            case "harden":
                shown = self.detail.shown_entry
                may_search = self._is_reading_entry or shown is None or can_search(shown)
                return bool(self.detail.entry_id) and not self.detail.is_trashed and may_search
            case "copy_hard":
                return self._is_reading_entry or bool(self.readout.hard and self.readout.hard.text)
        return True

    def action_pane(self, name: str) -> None:
        if name == "readout" and self.query_one("#right").has_class("-bare"):
            self.context.show_status("a failed run has no readout; F3 shows why it failed")
            return
        if name in ("prompt", "readout"):
            self.set_focus(self.prompt_pane.editor if name == "prompt" else self.readout)
            return
        self._show_lower_pane(name)
        if name == "runs":
            self._show_list()
        focus = {
            "library": self.library_pane.table,
            "runs": self.runs_pane.table,
            "compose": self.compose_pane.query_one("#composition"),
        }
        self.set_focus(focus[name])  # immediately, because the next key is meant for this pane

    def show_title(self) -> None:
        running, waiting, state = self.store.count("running"), self.store.count("queued"), self.worker.state
        status = _WORKER_STATUS.get(state, "") if state != "up" else "training" if running else "worker ready"
        opened = f"open: {self.library.opened_name}" if self.library.opened else ""
        tone = "accent" if running else "success" if state == "up" else "error" if state == "gone" else "warning"
        run = self.store.running_run(self.detail.run) if state == "up" else None
        if run:
            status = f"training {run.id[:6]}"
        what = (run.stage or run.name or run.prompt) if run else ""
        device = describe_load(self.devices.training) if running and self.devices.training else ""
        right = "  ".join(filter(None, (self.models.title(), device, f"{waiting} waiting" if waiting else "")))
        name = "" if run and run.stage else what or self.library.opened_name  # the line cuts it if it has to
        if state == "gone":  # the rest is not true any more, or does not matter now
            self.title_line.set_state(tone, status)
        else:
            self.title_line.set_state(tone, status, what, opened, right=right, name=name)
        self._show_failure_in_title()

    def _show_failure_in_title(self) -> None:
        """Turn the title line red if the run in view failed, or name the last run that failed out of view."""
        self.title_line.set_failure(*self.announcements.failure(self.detail.followed_run, self.title_line.room))

    # the worker

    @on(m.ConnectionChanged)
    def _connection_changed(self, event: m.ConnectionChanged) -> None:
        self._was_disconnected = self._was_disconnected or event.state == "gone"
        if event.state == "gone":
            self.title_line.clear_notice()
        if event.state == "gone" and event.reason:
            self.app.clear_notifications()  # the notice about the previous attempt
            self.context.show_status(
                f"{without_stop(event.reason)}. No run is lost; ctrl+r starts the worker again",
                "error",
                persistent=True,
            )
        elif event.state == "starting" and event.reason:
            self.context.show_status(event.reason)
        self.devices.connection_changed(event.state)
        self.detail.request_repaint()  # a run without a worker is not live
        self.show_title()

    @on(m.RunsListed)
    def _runs_listed(self, event: m.RunsListed) -> None:
        if self._was_disconnected:  # the notice about the lost connection is outdated
            self.app.clear_notifications()
        self._was_disconnected = False
        self._list_painter.paint()
        self.detail.request_repaint()
        if event.active_run:
            self.detail.run = ""
            self.detail.show_run(event.active_run)
        if (self.form.fields["model"] or DEFAULT_MODEL).lower() == DEFAULT_MODEL:
            self.queries.warm(self.form.fields["device"])
        self.measure_composition()

    @on(m.RunsChanged)
    def _show_list(self) -> None:
        """Paint the list of runs within LIST_SECONDS."""
        self._list_is_stale = True
        self._list_painter.request(LIST_SECONDS)

    def paint_stale_list(self) -> bool:
        """Paint the list of runs now if it is visible and outdated. Return whether it was."""
        if is_due := self._list_is_stale and self.runs_pane.display:
            self._list_painter.paint()
        return is_due

    def _paint_list(self) -> None:
        self._list_is_stale = False
        self.runs_pane.show(self.store.sorted_runs())
        self.show_title()
        self._update_keys()  # the run in view may have been dropped
        self.detail.queue_changed()
        self.devices.queue_changed()
        self.sweep.queue_changed()

    @on(m.RunChanged)
    def _run_changed(self, event: m.RunChanged) -> None:
        run, before = event.run, event.before
        self._show_list()
        is_at_cursor = self.runs_pane.table.has_focus and self.detail.is_chosen_by_cursor
        if event.is_next and not is_at_cursor:
            self.detail.show_run(run.id)
        self.detail.run_changed(run)
        self.sweep.run_changed(run.id)
        if run.state in ENDED and before is not None and before.state not in ENDED:
            self.announcements.announce_end(run, is_in_view=run.id == self.detail.run)
            self._show_failure_in_title()
            self.bell.run_ended(run, is_in_view=run.id == self.detail.run)

    @on(m.RunReported)
    def _run_reported(self, event: m.RunReported) -> None:
        if event.report.run not in self.store.by_id:  # the run was dropped in the meantime
            return
        if self._has_stage:  # training has begun
            self._has_stage = False
            self.show_title()
        self.detail.report(event.report)
        self.sweep.run_changed(event.report.run)
        if self.runs_pane.display:
            self._list_painter.paint_within(REPORT_SECONDS)

    @on(m.DevicesRequested)
    def _list_devices(self) -> None:
        self.devices.list()

    @on(m.DevicesChanged)
    def _devices_changed(self) -> None:
        self.prompt_pane.show_devices(self.devices.devices, self.devices.trouble)
        self.show_title()

    @on(m.RunStaged)
    def _run_staged(self, event: m.RunStaged) -> None:
        self._has_stage = True
        self.detail.run_changed(event.run)
        self.sweep.run_changed(event.run.id)
        self.show_title()
        if self.runs_pane.display:
            self._list_painter.paint_within(REPORT_SECONDS)

    @on(m.RunSubmitted)
    def _run_submitted(self, event: m.RunSubmitted) -> None:
        self.announcements.forget_failure()
        if event.is_next:
            self.detail.show_run(event.run)

    @on(m.RunHighlighted)
    def _run_highlighted(self, event: m.RunHighlighted) -> None:
        self.detail.show_run(event.run, is_under_cursor=True)

    @on(m.RunAction)
    def _act_on_run(self, event: m.RunAction) -> None:
        run = self.store.by_id.get(event.run)
        if event.action is OnRun.UNDO:
            self.runs.undo_drop()
            return
        if run is None:
            self.context.show_status("this run was dropped; u in runs (F6) brings it back")
            return
        match event.action:
            case OnRun.MODEL | OnRun.DEVICE | OnRun.EDIT:
                self._edit_failed_run(run, event.action)
            case OnRun.LOG:
                self.runs.show_log()
            case OnRun.SHOW:
                self.detail.show_run(run.id)
                if run.kind == "sweep":
                    self.sweep.open(run.id)
            case OnRun.HARDEN if run.entry:
                self._search_hard_readout(run.entry)
            case OnRun.HARDEN:
                self.context.show_status("a hard readout is available after training")
            case _:
                self.runs.act(event.action, run.id)

    def _edit_failed_run(self, run: RunSummary, action: OnRun) -> None:
        """Put the prompt of a failed run in the editor unless it is there, and go to the field to change."""
        pane = self.prompt_pane
        if run.prompt != pane.prompt:
            self._fill_prompt(m.PromptLoaded(run.prompt, {"model": run.model, "device": run.device}))
        self.set_focus(pane.editor)
        if action is not OnRun.EDIT:
            self._update_height_classes()  # a narrow terminal hides the fields until the pane has the focus
            self.call_after_refresh(self.set_focus, pane.query_one(f"#field-{action}"))

    # stopping the run in view

    def _stoppable_run(self) -> RunSummary | None:
        """Return the run in view if it can be stopped."""
        run = self.detail.followed_run
        return run if run is not None and run.state in STOPPABLE_STATES and not run.stopping else None

    def _update_keys(self) -> None:
        """Show the keys of what is in view only while they do something."""
        possible = tuple(self.check_action(action, ()) for action in ("stop_run", "harden", "copy_hard"))
        if possible != self._possible:
            self._possible = possible
            self.refresh_bindings()

    def action_stop_run(self) -> None:
        """Stop the run in view, or cut the text that the user has selected in the focused field."""
        run, focused = self._stoppable_run(), self.focused
        if isinstance(focused, (Input, TextArea)) and _has_chosen_selection(focused):
            focused.action_cut()
        elif run is not None:
            self.runs.act(OnRun.STOP, run.id)

    # loss, readout and details

    @on(m.DetailChanged)
    def _detail_changed(self, event: m.DetailChanged) -> None:
        if event.immediately:
            self._paint_detail()
        else:
            self._detail_painter.request(PAINT_SECONDS)

    def _repaint_theme(self) -> None:
        """Paint again what was painted in the colours of the previous theme."""
        self._paint_detail()
        self.readout.repaint()
        self.runs_pane.repaint()
        self.sweep.paint()

    def _paint_followed(self) -> None:
        """Bring the detail controller up to date, then repaint its panes."""
        self.detail.refresh()
        self._paint_detail()

    def _paint_detail(self) -> None:
        """Repaint the loss, readout and details panes, and the full curve if it is open.

        The panes show what `DetailController` holds. Its `DetailChanged` messages cause the repaint.
        """
        detail, run = self.detail, self.detail.followed_run
        if detail.figures is None:
            self.loss.clear()
        else:
            live = "live: " if detail.figures.is_running else ""
            self.loss.show(f"{live}{detail.title}", detail.series, detail.figures, detail.curve_labels)
        if not detail.is_reading:  # otherwise clearing the pane would only delay what it shows next
            self._paint_readout()
        if detail.facts is None:
            self.detail_pane.clear()
        else:
            self.detail_pane.show(*detail.facts)
        has_failed = detail.figures is not None and detail.figures.failure is not None
        right = self.query_one("#right")
        right.set_class(has_failed, "-failed")
        right.set_class(has_failed and detail.readout is None and not detail.is_reading, "-bare")
        right.set_class(run is not None and run.state == "running", "-training")
        self._update_keys()
        self._show_failure_in_title()
        self.library_pane.table.show_mark(detail.entry_id)
        self.runs_pane.show_mark(detail.run)
        if self._plot is not None and self._plot.is_current:
            self._plot.follow(self._plotted_curve)

    def _paint_readout(self) -> None:
        detail = self.detail
        painted, self._painted_readout = self._painted_readout, (detail.readout, detail.no_readout_reason)
        if detail.readout is None:
            if painted != self._painted_readout:
                self.readout.clear(detail.no_readout_reason)
        elif painted is None or painted[0] is not detail.readout:  # repainting would clear the marks on changed words
            self.readout.show(detail.readout_of, detail.readout)
        if detail.shown_entry is not None:
            self.readout.show_hard(self.hard.view_of_entry(detail.shown_entry, detail.is_trashed))
        elif detail.followed_run is not None:
            self.readout.show_hard(self.hard.view_of_run(detail.followed_run))

    @on(m.EntryHighlighted)
    def _entry_highlighted(self, event: m.EntryHighlighted) -> None:
        may_follow = event.is_new_list or self.detail.entry in ("", event.entry)
        if event.by_user or (may_follow and not self.detail.run):
            if event.entry:
                self.detail.show_entry(event.entry, event.is_trashed)
            elif not self.detail.run:
                self.detail.show_nothing()

    @on(m.TrashToggled)
    def _trash_toggled(self) -> None:
        self._show_lower_pane(self.lower_pane)

    @on(m.ShowEntryRequested)
    def _show_entry(self, event: m.ShowEntryRequested) -> None:
        self.detail.show_entry(event.entry)

    @on(m.ShownEntryGone)
    def _shown_entry_gone(self, event: m.ShownEntryGone) -> None:
        if (current := self.library_pane.table.current) != event.entry:
            entry = self.library_pane.current()
            is_trashed = entry is not None and bool(entry.trashed)
            self._entry_highlighted(m.EntryHighlighted(current, by_user=False, is_trashed=is_trashed))

    def action_plot(self) -> None:
        from softprompt_tui.screens.loss_plot import PlotScreen  # other screens are imported when needed

        detail, run = self.detail, self.detail.followed_run
        if run is not None and run.state == "failed" and not self.loss.has_focus:
            self.remove_class("-reading")  # on a narrow terminal, the readout hides the pane while it has the focus
            self.set_focus(self.loss)  # its keys say what to do
            return
        if sum(is_plottable(*point[:2]) for point in detail.series.points) < MIN_PLOT_POINTS:
            self.context.show_status("there is no curve to show yet")
            return
        self._plot = PlotScreen(self._plotted_curve)
        self.app.push_screen(self._plot)

    @property
    def _plotted_curve(self) -> PlottedCurve:
        from softprompt_tui.screens.loss_plot import PlottedCurve

        detail = self.detail
        return PlottedCurve(
            detail.title, detail.series, detail.figures or LossFigures(), detail.curve_names, detail.measure,
            detail.curve_labels,
        )  # fmt: skip

    # the prompt

    def action_train(self) -> None:
        self.context.spawn(partial(self.runs.train, self.form), group="train")

    def action_sweep(self) -> None:
        self.context.spawn(partial(self.sweep.begin, self.form), group="sweep")

    @on(m.SweepReady)
    def _sweep_ready(self, event: m.SweepReady) -> None:
        if self.is_on_top:
            self.sweep.open(event.run)

    @on(m.SweepChanged)
    def _sweep_changed(self) -> None:
        self._sweep_painter.request(SWEEP_SECONDS)

    @on(m.SweepKeepRequested)
    def _keep_sweep_results(self, event: m.SweepKeepRequested) -> None:
        self.sweep.keep(event.run, event.token_counts)

    # models

    def action_models(self) -> None:
        self.models.open()

    @on(m.PortRequested)
    def _port(self, event: m.PortRequested) -> None:
        self.models.open("Models   enter trains the soft prompt for this model", event.entry)

    @on(m.ModelAction)
    def _act_on_model(self, event: m.ModelAction) -> None:
        self.models.act(event.action, event.model)

    @on(m.ModelsRequested)
    def _list_models(self) -> None:
        self.models.refresh()

    @on(m.ModelsChanged)
    def _models_changed(self) -> None:
        self._models_painter.request(MODELS_SECONDS if self.models.screen is not None else REPORT_SECONDS)

    def _paint_models(self) -> None:
        self.models.paint()
        self.show_title()

    @on(m.ModelChosen)
    def _choose_model(self, event: m.ModelChosen) -> None:
        if event.for_entry:
            self.context.spawn(partial(self.runs.port, event.for_entry, event.model, self.form), group="train")
            return
        self.prompt_pane.set_field("model", event.model)
        self.context.show_status(f"model: {event.model}" if event.is_on_disk else f"training pulls {event.model} first")

    @on(m.PromptChanged)
    def _prompt_changed(self) -> None:
        self.count()
        self._save_draft()

    def count(self) -> None:
        self.queries.count(self.prompt_pane.editor.text, self.form.fields["model"], self._show_count)

    def _show_count(self, counted: PromptCount) -> None:
        more = self.settings.more
        changed = changed_settings(more, self.prompt_pane.model_kind) if more else {}
        self.prompt_pane.show_count(counted.tokens, len(changed), counted.syntax)
        fields = self.form.fields
        chosen = (fields["model"], fields["device"])
        if chosen != self._measured_on:  # the composition uses the chosen model too
            self._measured_on = chosen
            self.measure_composition()

    def _save_draft(self) -> None:
        typed = (self.prompt_pane.editor.text, self.prompt_pane.fields, self.compose_pane.composition)

        async def keep() -> None:
            if error := await save_draft(self.draft, *typed):
                self.log(error)

        self.context.spawn(keep, group="draft", exclusive=True)

    @on(m.PromptsChanged)
    def _prompts_changed(self) -> None:
        self.prompt_pane.set_history(self.settings.prompts)
        self.context.save_settings()

    @on(m.PromptLoaded)
    def _fill_prompt(self, event: m.PromptLoaded) -> None:
        self.settings.add_to_history(self.prompt_pane.prompt)  # the up key brings the replaced prompt back
        self.prompt_pane.set_history(self.settings.prompts)
        self.prompt_pane.set(event.prompt, event.fields)
        self.count()
        self.prompt_pane.editor.focus()

    def action_more(self) -> None:
        self.context.spawn(self._ask_more, group="dialogs")

    def choose_bell(self) -> None:
        self.context.spawn(self.bell.choose, group="dialogs")

    async def _ask_more(self) -> None:
        from softprompt_tui.screens.training_settings import SettingsScreen

        typed = await self.context.ask(SettingsScreen(self.settings.more, self.prompt_pane.model_kind))
        if typed is not None:
            self.settings.more = typed
            self.context.save_settings()
            self.count()

    # the library

    @on(m.EntryAction)
    def _act_on_entry(self, event: m.EntryAction) -> None:
        match event.action:
            case OnEntry.HARDEN:
                self._search_hard_readout(event.entries[0])
            case OnEntry.COPY_HARD:
                self.context.spawn(partial(self.hard.copy_from_entry, event.entries[0]), group="entries")
            case _:
                self.library.act(event.action, event.entries)

    @on(m.LibraryChanged)
    def _library_changed(self, event: m.LibraryChanged) -> None:
        entry = event.entry if event.by_user or not self.library_pane.table.has_focus else ""
        self.library.mark_seen()
        self.library_pane.reload(entry)
        if entry and not self.detail.run:
            self.detail.entry = ""  # show the entry that the cursor moves to
        else:
            self.detail.reload()
        self.library.refresh_opened()

    @on(m.TagChosen)
    def _tag_chosen(self, event: m.TagChosen) -> None:
        self.library_pane.filter_by(event.tag)

    @on(m.MarksUsed)
    def _clear_marks(self) -> None:
        self.library_pane.clear_marks()

    @on(m.OpenEntryChanged)
    def _opened_changed(self) -> None:
        self.show_title()
        self.measure_composition()

    # hard readouts

    def _search_hard_readout(self, entry: str) -> None:
        self.hard.search(entry, self.form.fields["device"])

    def action_harden(self) -> None:
        if self.detail.entry_id:
            self._search_hard_readout(self.detail.entry_id)
        elif self.detail.run:
            self.context.show_status(f"a hard readout {AFTER_TRAINING}")
        else:
            self.context.show_status("no entry is shown, so there is nothing to search for")

    @property
    def _is_reading_entry(self) -> bool:
        """Whether the entry to show has not been read yet. The readout pane still shows the previous one."""
        entry, shown = self.detail.entry, self.detail.shown_entry
        return self.detail.is_reading or (bool(entry) and (shown is None or shown.id != entry))

    def action_copy_hard(self) -> None:
        """Copy the hard readout shown in the pane. During a search, this may be the best text so far."""
        if self._is_reading_entry:
            self.context.spawn(partial(self.hard.copy_from_entry, self.detail.entry_id), group="entries")
            return
        shown = self.readout.hard
        self.hard.copy(shown.text if shown else "")

    # composing

    @on(m.CompositionChanged)
    def _composition_changed(self) -> None:
        self.measure_composition()
        self._save_draft()

    def measure_composition(self) -> None:
        pane, fields = self.compose_pane, self.form.fields
        self.queries.compose(
            pane.composition, pane.against, fields["model"], fields["device"], self.library.opened, pane.show
        )

    @on(m.CompositionTrainRequested)
    def _train_composition(self) -> None:
        work = partial(self.runs.train_composition, self.compose_pane.composition, self.form, self.library.opened)
        self.context.spawn(work, group="compositions")

    @on(m.CompositionTextAdded)
    def _add_to_composition(self, event: m.CompositionTextAdded) -> None:
        self.compose_pane.insert(event.text)

    def action_help(self) -> None:
        from softprompt_tui.screens.help import HelpScreen, focused_pane

        pane = focused_pane(self.focused)
        self.app.push_screen(HelpScreen("trash" if pane == "library" and self.library_pane.shows_trash else pane))

    def action_words(self) -> None:
        from softprompt_tui.screens.help import focused_pane
        from softprompt_tui.screens.words import WordsScreen

        self.app.push_screen(WordsScreen(focused_pane(self.focused)))

    def action_guides(self) -> None:
        from softprompt_tui.screens.docs import DocsScreen

        self.app.push_screen(DocsScreen())


def _has_chosen_selection(field: Input | TextArea) -> bool:
    """Return whether the user has selected text. Moving to a field selects all of it, which does not count."""
    if isinstance(field, TextArea):
        return not field.selection.is_empty
    is_whole = (field.selection.start, field.selection.end) == (0, len(field.value))
    return not field.selection.is_empty and not (is_whole and field.select_on_focus)
