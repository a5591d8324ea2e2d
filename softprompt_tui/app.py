"""The application: its wiring, themes and output filter, what is typed, and leaving. It loads no torch; the worker trains."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from textual import events, work
from textual.app import App, ScreenStackError, SystemCommand
from textual.binding import BindingType
from textual.css.query import NoMatches
from textual.driver import Driver
from textual.filter import LineFilter, Monochrome, NoColor
from textual.screen import Screen
from textual.widgets import Input, TextArea
from textual.worker import WorkerFailed, get_current_worker

from softprompt.errors import SoftPromptError
from softprompt.library import Library
from softprompt_tui.bindings import EVERYWHERE
from softprompt_tui.commands import commands
from softprompt_tui.controllers.quit import QuitController, save_settings
from softprompt_tui.input_queue import InputQueue
from softprompt_tui.main_screen import HUGE, NARROW, MainScreen
from softprompt_tui.rendering.output_filter import OutputFilter
from softprompt_tui.rendering.sanitize import pasted, sanitize
from softprompt_tui.services.clipboard import copy
from softprompt_tui.services.worker import News, WorkerConnection
from softprompt_tui.state import settings as kept
from softprompt_tui.state.draft import Draft
from softprompt_tui.state.runs import RunStore
from softprompt_tui.terminal_input import with_our_input
from softprompt_tui.themes import THEMES
from softprompt_tui.widgets.name_completion import CompositionInput
from softprompt_tui.widgets.title import TitleLine

if TYPE_CHECKING:
    from textual.message import Message

    from softprompt_tui.app_context import Severity

GUARD, NO_COLOR = OutputFilter(), NoColor()
NOTICE_FOR, FOR_GOOD = 12.0, 1e6  # seconds
Answer = TypeVar("Answer")


class SoftPromptApp(App[None], inherit_bindings=False):
    """The application, as an AppContext. `library` and `worker` are what it works on; tests give their own line to the worker."""

    TITLE = "softprompt-tui"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW, "-normal"), (120, "-wide"), (HUGE, "-huge")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = EVERYWHERE

    def __init__(self, library: Library | None = None, worker: WorkerConnection | None = None) -> None:
        super().__init__()
        self.settings, self._notice = kept.load()
        self.draft = Draft()
        self.draft.restore(self.settings)
        self.input_queue = InputQueue(self, partial(self.show_status, severity="warning"), self._paint_due)
        self.library = library or Library(say=self._say_later)
        self.worker = worker or WorkerConnection(self._heard)
        self.worker.tell = self._heard
        self.runs = RunStore()
        self.main = MainScreen(self, self.draft)
        self.quit = QuitController(self, self.main.runs.stop, self.main.runs.all_handed_in)
        for theme in THEMES:
            self.register_theme(theme)
        self._begin_with_theme(self.settings.theme if self.settings.theme in self.available_themes else THEMES[0].name)

    def _begin_with_theme(self, name: str) -> None:
        """As setting it does, but before anything is styled: later it would style all 70 widgets twice, a sixth of the start."""
        self.set_reactive(App.theme, name)
        is_dark = self.current_theme.dark
        classes = {f"-theme-{name}": True, "-dark-mode": is_dark, "-light-mode": not is_dark}
        self.update_classes(classes, update=False)
        self._refresh_truecolor_filter(self.ansi_theme)
        self.stylesheet.set_variables(self.get_css_variables())

    def get_default_screen(self) -> Screen[object]:
        return cast(Screen[object], self.main)

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [one for one in super().get_line_filters() if not isinstance(one, Monochrome)]
        # where no colours are wanted Textual sends greys, which are colours too
        return [*filters, *[NO_COLOR] * self.no_color, GUARD]

    def get_driver_class(self) -> type[Driver]:
        return with_our_input(super().get_driver_class())

    def on_mount(self) -> None:
        if self._notice:
            self.show_status(self._notice, "warning")
        self.spawn(self.input_queue.run, group="keys")
        self.spawn(self.worker.run, group="line")

    def _paint_due(self) -> bool:
        return self.is_mounted_and_running() and self.main.paint_due()

    def is_mounted_and_running(self) -> bool:
        """False while the interface is being left, and its panes are gone already."""
        try:
            return bool(self.screen_stack[0].query(TitleLine))
        except (IndexError, ScreenStackError):
            return False

    def _heard(self, news: News) -> None:
        if self.is_mounted_and_running():
            self.main.runs.on_worker_message(news)

    # as an AppContext

    def spawn(self, work: Callable[[], Awaitable[object]], group: str, exclusive: bool = False) -> None:
        self.run_worker(partial(self._spawned, work), group=group, exclusive=exclusive)  # type: ignore[arg-type]

    async def _spawned(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (SoftPromptError, OSError) as error:  # a home that another user took, a full disk: the rest works
            if self.is_mounted_and_running():
                self.show_status(str(error), "error")
        except (NoMatches, IndexError, ScreenStackError):
            if self.is_mounted_and_running():
                raise

    async def ask(self, screen: Screen[Answer]) -> Answer | None:
        answer: Answer | None = await self.push_screen_wait(screen)
        return answer

    async def push_screen_wait(self, screen: Screen[Any] | str, *, mode: str | None = None) -> Any:
        if isinstance(screen, Screen):
            self.input_queue.waits_for(get_current_worker(), screen)
        return await super().push_screen_wait(screen, mode=mode)

    def show(self, screen: Screen[None], then: Callable[[], None] | None = None) -> None:
        self.push_screen(screen, (lambda _: then()) if then else None)

    def post(self, message: Message) -> None:
        self.main.post_message(message)

    async def copy(self, text: str) -> str:
        return await copy(self, text)

    def show_status(self, words: str, severity: Severity = "information", stays: bool = False) -> None:
        """News stand in the first line for a while; what went wrong lies over the panes for longer, or until it is put away."""
        if severity == "information":
            self.main.title_line.say(words)
            return
        if stays:
            self.notify(sanitize(words), severity=severity, markup=False, timeout=FOR_GOOD)
            return
        self.notify(sanitize(words), severity=severity, markup=False, timeout=NOTICE_FOR)
        # a notice that goes is not always painted over by itself
        self.set_timer(NOTICE_FOR + 0.3, self._repaint)

    def _say_later(self, words: str) -> None:
        self.call_later(self.show_status, words)

    def save_settings(self) -> None:
        """Remembers what is typed and chosen; where it cannot be written it is only logged."""
        if not self.is_mounted_and_running():
            return
        self.main.remember()
        self.settings.theme = self.theme
        if trouble := save_settings(self.settings, self.draft):
            self.log(trouble)

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

    def on_descendant_focus(self) -> None:
        if isinstance(self.focused, (Input, TextArea)):
            self.focused.cursor_blink = False  # 1.5 KB/s over a slow link, for nothing

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if action == "field" and isinstance(self.focused, CompositionInput):
            return not self.focused.names.display
        # no dialog is left unanswered; a sweep's screen is none, over nothing that would be unseen
        return action != "leave" or self.screen in (self.main, self.main.sweep.screen)

    def action_field(self, way: int) -> None:
        self.screen.focus_next() if way > 0 else self.screen.focus_previous()

    def action_quiet(self) -> None:
        self.clear_notifications()
        self._repaint()

    def _repaint(self) -> None:
        self.screen.refresh()

    def action_mend(self) -> None:
        if self.worker.state == "up":
            self.show_status("the worker is there")
        self.worker.reconnect()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:  # noqa: ARG002
        yield from commands(self.main)
        yield SystemCommand("Start the worker again", "ctrl+r, where it is gone", self.action_mend)
        yield SystemCommand("Theme", "dark, light, high contrast, the terminal's 16 colours", self.action_change_theme)
        yield SystemCommand("Screenshot", "as SVG", partial(self.deliver_screenshot))
        yield SystemCommand("Help", "F1", self.main.action_help)
        yield SystemCommand("Quit", "ctrl+q; what trains goes on", self.action_leave)

    # leaving

    @work(group="leave")
    async def action_leave(self) -> None:
        """Quits; asks once where something trains."""
        if sum(one.group == "leave" and not one.is_finished for one in self.workers) > 1:
            return  # it is being asked already
        if await self.quit.confirm_quit():
            self.quit_now()

    def quit_now(self) -> None:
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
            self.save_settings()
        self._close_messages_no_wait()

    def _fatal_error(self) -> None:
        self.panic()
