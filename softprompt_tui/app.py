"""The interface: one screen, its keys, and who hears what. It loads no torch; the worker trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Literal

from textual import events, on, work
from textual.app import App, ComposeResult, ScreenStackError, SystemCommand
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.css.query import NoMatches
from textual.driver import Driver
from textual.filter import LineFilter, Monochrome, NoColor
from textual.screen import Screen
from textual.widgets import Input, TextArea
from textual.worker import WorkerFailed, get_current_worker

from softprompt.errors import SoftPromptError
from softprompt.library import Library
from softprompt_tui import bindings as keys
from softprompt_tui.commands import commands
from softprompt_tui.controllers import quit as leaving
from softprompt_tui.controllers.detail import Shown
from softprompt_tui.controllers.hard_readout import Hard
from softprompt_tui.controllers.library import ASKING, Entries
from softprompt_tui.controllers.live_queries import Questions
from softprompt_tui.controllers.runs import Runs
from softprompt_tui.controllers.sweep import Sweeps
from softprompt_tui.input_queue import InputQueue
from softprompt_tui.messages import (
    CompositionChanged,
    CompositionKept,
    EntryAction,
    EntryHighlighted,
    PromptChanged,
    RunAction,
    TrainAsked,
)
from softprompt_tui.rendering.output_filter import Guard
from softprompt_tui.rendering.sanitize import inert, pasted
from softprompt_tui.screens.help import HelpScreen, pane_of
from softprompt_tui.screens.loss_plot import PlotScreen
from softprompt_tui.screens.sweep import SweepScreen
from softprompt_tui.screens.training_settings import MoreScreen
from softprompt_tui.services.worker import Line
from softprompt_tui.state import settings as kept
from softprompt_tui.state.draft import Draft
from softprompt_tui.terminal_input import with_our_input
from softprompt_tui.themes import THEMES
from softprompt_tui.widgets.composition import ComposePane
from softprompt_tui.widgets.detail import DetailPane
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.library import LibraryPane
from softprompt_tui.widgets.loss import LossPane
from softprompt_tui.widgets.name_completion import Composition
from softprompt_tui.widgets.pane import Pane, titled
from softprompt_tui.widgets.prompt import PromptPane
from softprompt_tui.widgets.readout import ReadoutPane
from softprompt_tui.widgets.runs import RunsPane
from softprompt_tui.widgets.title import TitleLine

GUARD, NO_COLOR = Guard(), NoColor()
NOTICE_FOR, FOR_GOOD = 12.0, 1e6  # seconds
NARROW = 72  # columns under which the panes lie over each other
HUGE = 170  # columns from which library, compose and runs stand side by side
BELOW = {"library": ("F4", "Library"), "compose": ("F5", "Compose"), "runs": ("F6", "Runs")}
_DOWN = {"starting": "starting the worker", "gone": "no worker: ctrl+r starts it", "": ""}


class SoftPromptApp(App[None], inherit_bindings=False):
    """The application. `library` and `line` are what it works on; tests give their own line."""

    TITLE = "softprompt-tui"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-normal"), (120, "-wide"), (HUGE, "-huge")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = keys.BINDINGS

    title_line = Pane(TitleLine)
    prompt_pane = Pane(PromptPane)
    loss = Pane(LossPane)
    readout = Pane(ReadoutPane)
    detail = Pane(DetailPane)
    library_pane = Pane(LibraryPane)
    compose_pane = Pane(ComposePane)
    runs_pane = Pane(RunsPane)

    def __init__(self, library: Library | None = None, line: Line | None = None) -> None:
        super().__init__()
        self.settings, self._notice = kept.load()
        self.draft = Draft()
        self.draft.restore(self.settings)
        self.input_queue = InputQueue(self, partial(self.say, severity="warning"))
        self.runs = Runs(self)
        self.questions = Questions(self)
        self.sweeps, self.hard = Sweeps(self), Hard(self)
        self.library = library or Library(say=self._say_later)
        self.line = line or Line(self.runs.heard)
        self.line.tell = self.runs.heard
        self.shown = Shown(self)
        self.entries = Entries(self)
        self.below = self.settings.pane if self.settings.pane in BELOW else "library"
        for theme in THEMES:
            self.register_theme(theme)
        # before anything is styled: setting it later styles all 70 widgets twice, a sixth of the start
        self.set_reactive(App.theme, self.settings.theme if self.settings.theme in self.available_themes else THEMES[0].name)
        self.stylesheet.set_variables(self.get_css_variables())

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [one for one in super().get_line_filters() if not isinstance(one, Monochrome)]
        # where no colours are wanted Textual sends greys, which are colours too
        return [*filters, *[NO_COLOR] * self.no_color, GUARD]

    def get_driver_class(self) -> type[Driver]:
        return with_our_input(super().get_driver_class())

    def compose(self) -> ComposeResult:
        yield TitleLine()
        with Horizontal(id="body"):
            with Vertical(id="left"):
                yield PromptPane(self.settings.prompt, self.settings.train, self.settings.prompts)
                yield ComposePane(self.library, self.settings.compose)
                yield LibraryPane(self.library, self.settings.sort)
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
        if self._notice:
            self.say(self._notice, "warning")
        self.begin(self.input_queue.run, group="keys")
        self.begin(self.line.run, group="line")
        self.questions.count()
        self.questions.models()
        self.set_interval(3.0, self.entries.watch)

    def begin(self, work: Callable[[], Any], group: str, exclusive: bool = False) -> None:
        """Starts `work` beside everything else; with `exclusive`, what was begun in that group before is given up."""
        self.run_worker(partial(self._begun, work), group=group, exclusive=exclusive)  # type: ignore[arg-type]

    async def _begun(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except (SoftPromptError, OSError) as error:  # a home that another user took, a full disk: the rest works
            if self.is_there():
                self.say(str(error), "error")
        except (NoMatches, IndexError, ScreenStackError):
            if self.is_there():
                raise

    def is_there(self) -> bool:
        """False while the interface is being left, and its panes are gone already."""
        try:
            return bool(self.screen_stack[0].query(TitleLine))
        except (IndexError, ScreenStackError):
            return False

    # what is typed

    async def on_event(self, event: events.Event) -> None:
        """Handle an event when its turn has come."""
        if self.input_queue.takes(event):
            return
        if isinstance(event, events.Paste) and not event.is_forwarded:
            event.text = self._as_pasted(event.text)
        await super().on_event(event)

    @property
    def clipboard(self) -> str:
        """What ctrl+v inserts."""
        return self._as_pasted(super().clipboard)

    def _as_pasted(self, text: str) -> str:
        return pasted(text, on_one_line=isinstance(self.focused, Input))

    async def push_screen_wait(self, screen: Screen[Any] | str, *, mode: str | None = None) -> Any:
        if isinstance(screen, Screen):
            self.input_queue.waits_for(get_current_worker(), screen)
        return await super().push_screen_wait(screen, mode=mode)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        """While something lies over the panes, its own keys hold: nothing under it is reached unseen."""
        if action == "field" and isinstance(self.focused, Composition):
            return not self.focused.names.display
        if action == "leave" and isinstance(self.screen, SweepScreen):  # a screen of its own, over nothing that would be unseen
            return True
        return action not in keys.UNDER_NOTHING or len(self.screen_stack) == 1

    def action_field(self, way: int) -> None:
        self.screen.focus_next() if way > 0 else self.screen.focus_previous()

    # panes

    def _show_below(self, name: str) -> None:
        self.below = name
        tabs = "  ".join(titled(key, words, f"pane('{one}')", one == name) for one, (key, words) in BELOW.items())
        for one, (key, words) in BELOW.items():
            pane = self.screen_stack[0].query_one(f"#{one}")
            pane.display = one == name or self.has_room_for_all
            pane.border_title = titled(key, words, f"pane('{one}')") if self.has_room_for_all else tabs

    @property
    def has_room_for_all(self) -> bool:
        return self.size.width >= HUGE

    def on_resize(self) -> None:
        self.call_after_refresh(lambda: self._show_below(self.below))  # a key may choose another pane meanwhile
        self._make_room()
        self.screen_stack[0].query_one(KeyBar).compact = self.size.width < NARROW

    def on_descendant_focus(self) -> None:
        if isinstance(self.focused, (Input, TextArea)):
            self.focused.cursor_blink = False  # 1.5 KB/s over a slow link, for nothing
        self._make_room()

    def _make_room(self) -> None:
        """On a narrow terminal the prompt is low while one does something else, and the readout while one does not read it."""
        if len(self.screen_stack) == 1:
            # only there: a class of the screen restyles all of its 70 widgets
            narrow = self.size.width < NARROW
            self.screen.set_class(narrow and self.prompt_pane.has_focus_within, "-writing")
            self.screen.set_class(narrow and self.readout.has_focus, "-reading")

    def action_pane(self, name: str) -> None:
        if name in ("prompt", "readout"):
            self.screen.set_focus(self.prompt_pane.editor if name == "prompt" else self.readout)
            return
        self._show_below(name)
        if name == "runs":
            self.runs.show()
        focus = {
            "library": self.library_pane.table,
            "runs": self.runs_pane.table,
            "compose": self.compose_pane.query_one("#composition"),
        }
        self.screen.set_focus(focus[name])  # at once: what is typed next is meant for it

    def say(self, words: str, severity: Literal["information", "warning", "error"] = "information", stays: bool = False) -> None:
        """News stand in the first line for a while; what went wrong lies over the panes for longer, or until it is put away."""
        if severity == "information":
            self.title_line.say(words)
            return
        if stays:
            self.notify(inert(words), severity=severity, markup=False, timeout=FOR_GOOD)
            return
        self.notify(inert(words), severity=severity, markup=False, timeout=NOTICE_FOR)
        # a notice that goes is not always painted over by itself
        self.set_timer(NOTICE_FOR + 0.3, self._repaint)

    def action_quiet(self) -> None:
        self.clear_notifications()
        self._repaint()

    def _repaint(self) -> None:
        self.screen.refresh()

    def _say_later(self, words: str) -> None:
        self.call_later(self.say, words)

    def show_title(self) -> None:
        going, waiting = self.runs.count("running"), self.runs.count("queued")
        state = _DOWN.get(self.line.state, "") if self.line.state != "up" else "training" if going else "worker ready"
        opened = f"open: {self.entries.opened_name}" if self.entries.opened else ""
        tone = (
            "accent" if going else "success" if self.line.state == "up" else "error" if self.line.state == "gone" else "warning"
        )
        self.title_line.show(tone, state, f"{waiting} waiting" if waiting else "", opened)

    # the worker

    def action_mend(self) -> None:
        if self.line.state == "up":
            self.say("the worker is there")
        self.line.mend()

    # training

    @on(TrainAsked)
    def action_train(self) -> None:
        self.begin(self.runs.train, group="train")  # who asks twice gets two

    def action_sweep(self) -> None:
        self.begin(self.sweeps.begin, group="sweep")

    def action_harden(self) -> None:
        self.begin(self.hard.look_for_shown, group="requests")

    def action_copy_hard(self) -> None:
        self.hard.copy_shown()

    @on(PromptChanged)
    def _prompt_changed(self) -> None:
        self.questions.count()
        self.begin(partial(leaving.keep_draft, self), group="draft", exclusive=True)

    @work(group="dialogs")
    async def action_more(self) -> None:
        typed = await self.push_screen_wait(MoreScreen(self.settings.more))
        if typed is not None:
            self.settings.more = typed
            self.save_settings()
            self.questions.count()

    @on(RunAction)
    def _act_on_run(self, event: RunAction) -> None:
        self.runs.act(event.action, event.run)

    # the library

    @on(EntryHighlighted)
    def _highlighted(self, event: EntryHighlighted) -> None:
        if event.by_hand or (not self.shown.run and self.shown.entry in ("", event.entry)):
            if event.entry:
                self.shown.show_entry(event.entry)
            elif not self.shown.run:
                self.shown.nothing()

    @on(EntryAction)
    def _act_on_entry(self, event: EntryAction) -> None:
        group = "dialogs" if event.action in ASKING else "entries"
        self.begin(partial(self.entries.do, event.action, event.entries), group=group)

    # composing

    @on(CompositionChanged)
    def _composition_changed(self) -> None:
        self.questions.compose()
        self.begin(partial(leaving.keep_draft, self), group="draft", exclusive=True)

    @on(CompositionKept)
    def _composition_kept(self) -> None:
        self.begin(self.runs.train_composition, group="compositions")

    # the rest

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:  # noqa: ARG002
        return commands(self)

    def action_help(self) -> None:
        self.push_screen(HelpScreen(pane_of(self.focused)))

    def action_plot(self) -> None:
        self.push_screen(PlotScreen(self.shown.title, self.shown.series, self.shown.curves, self.shown.measure))

    @work(group="leave")
    async def action_leave(self) -> None:
        """Quits; asks once where something trains."""
        if sum(one.group == "leave" and not one.is_finished for one in self.workers) > 1:
            return  # it is being asked already
        if await leaving.is_meant(self):
            self.leave_now()

    def leave_now(self) -> None:
        """Quits without asking; what trains goes on."""
        self.save_settings()
        self.exit()

    @property
    def crash(self) -> BaseException | None:
        """What ended the interface, or None."""
        return self._exception.error if isinstance(self._exception, WorkerFailed) else self._exception

    def panic(self, *renderables: object) -> None:  # noqa: ARG002
        """End at once, without a traceback on the terminal: who opened the interface reports `crash`."""
        self._return_code = 1
        with suppress(Exception):  # whatever is broken, the terminal must be put back
            leaving.save_settings(self)
        self._close_messages_no_wait()

    def _fatal_error(self) -> None:
        self.panic()

    def save_settings(self) -> None:
        leaving.save_settings(self)


def main() -> None:
    SoftPromptApp().run()
