"""The application: wiring, themes, output filter, input and quitting. It never loads torch: the worker does."""

from __future__ import annotations

import gc
import os
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
from softprompt_tui.bindings import APP_BINDINGS
from softprompt_tui.commands import commands
from softprompt_tui.controllers.quit import QuitController, save_settings
from softprompt_tui.input_queue import InputQueue
from softprompt_tui.main_screen import HUGE_COLUMNS, NARROW_COLUMNS, MainScreen
from softprompt_tui.rendering.output_filter import OutputFilter
from softprompt_tui.rendering.sanitize import clean_paste, sanitize
from softprompt_tui.services.clipboard import copy
from softprompt_tui.services.line_speed import LineSpeed
from softprompt_tui.services.notification import notification
from softprompt_tui.services.worker import WorkerConnection, WorkerMessage
from softprompt_tui.state import settings as stored_settings
from softprompt_tui.state.draft import Draft
from softprompt_tui.state.runs import RunStore
from softprompt_tui.terminal_input import TerminalDriver, replace_terminal_driver
from softprompt_tui.themes import THEMES
from softprompt_tui.widgets.name_completion import CompositionInput
from softprompt_tui.widgets.title import TitleLine

if TYPE_CHECKING:
    from textual.message import Message

    from softprompt_tui.app_context import Severity

OUTPUT_FILTER, NO_COLOR = OutputFilter(), NoColor()
NOTICE_SECONDS, UNTIL_DISMISSED_SECONDS = 12.0, 1e6
Answer = TypeVar("Answer")


class SoftPromptApp(App[None], inherit_bindings=False):
    """The application. It implements AppContext."""

    TITLE = "softprompt-tui"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (NARROW_COLUMNS, "-normal"), (120, "-wide"), (HUGE_COLUMNS, "-huge")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (36, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = APP_BINDINGS

    def __init__(self, library: Library | None = None, worker: WorkerConnection | None = None) -> None:
        super().__init__()
        self.settings, self._notice = stored_settings.load()
        self.draft = Draft()
        self.draft.restore(self.settings)
        self.input_queue = InputQueue(self, partial(self.show_status, severity="warning"), self._paint_pending)
        self.library = library or Library(notify=self._show_status_later)
        self.worker = worker or WorkerConnection(self._forward_message)
        self.worker.on_message = self._forward_message
        self.line = LineSpeed(self._write_to_terminal)
        self.runs = RunStore()
        self.main = MainScreen(self, self.draft)
        self.quit = QuitController(self, self.main.runs.stop, self.main.runs.wait_for_submits)
        for theme in THEMES:
            self.register_theme(theme)
        self._apply_first_theme(self.settings.theme if self.settings.theme in self.available_themes else THEMES[0].name)

    def _apply_first_theme(self, name: str) -> None:
        """Set the theme before the widgets are styled for the first time.

        Setting `theme` later would style all 70 widgets twice, which takes a sixth of the startup time.
        """
        self.set_reactive(App.theme, name)
        is_dark = self.current_theme.dark
        classes = {f"-theme-{name}": True, "-dark-mode": is_dark, "-light-mode": not is_dark}
        self.update_classes(classes, update=False)
        self._refresh_truecolor_filter(self.ansi_theme)
        self.stylesheet.set_variables(self.get_css_variables())

    def get_default_screen(self) -> Screen[object]:
        return cast(Screen[object], self.main)

    def get_line_filters(self) -> Sequence[LineFilter]:
        filters = [line_filter for line_filter in super().get_line_filters() if not isinstance(line_filter, Monochrome)]
        # with NO_COLOR, Textual still sends grays, which are colors too
        return [*filters, *[NO_COLOR] * self.no_color, OUTPUT_FILTER]

    def get_driver_class(self) -> type[Driver]:
        return replace_terminal_driver(super().get_driver_class())

    def on_mount(self) -> None:
        if self._notice:
            self.show_status(self._notice, "warning")
        self.spawn(self.input_queue.run, group="keys")
        self.call_after_refresh(self._after_first_paint)

    def _after_first_paint(self) -> None:
        # Collect garbage again. What the start has allocated stays, so it is never looked at again.
        gc.freeze()
        gc.enable()
        self.spawn(self.worker.run, group="line")
        self.main.start_queries()

    def _paint_pending(self) -> bool:
        return self.is_mounted_and_running() and self.main.paint_stale_list()

    def is_mounted_and_running(self) -> bool:
        """Return whether the panes exist. They are removed one by one before the application has finished quitting."""
        try:
            return self.is_running and bool(self.screen_stack[0].query(TitleLine))
        except (IndexError, ScreenStackError):
            return False

    def _forward_message(self, message: WorkerMessage) -> None:
        if self.is_mounted_and_running():
            self.main.runs.on_worker_message(message)

    # AppContext

    def spawn(self, work: Callable[[], Awaitable[object]], group: str, exclusive: bool = False) -> None:
        self.run_worker(partial(self._spawned, work), group=group, exclusive=exclusive)  # type: ignore[arg-type]

    async def _spawned(self, work: Callable[[], Awaitable[object]]) -> None:
        try:
            await work()
        except (SoftPromptError, OSError) as error:  # for example a full disk: the rest of the interface still works
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
            self.input_queue.note_dialog(get_current_worker(), screen)
        return await super().push_screen_wait(screen, mode=mode)

    def show(self, screen: Screen[None], then: Callable[[], None] | None = None) -> None:
        self.push_screen(screen, (lambda _: then()) if then else None)

    def post(self, message: Message) -> None:
        self.main.post_message(message)

    async def copy(self, text: str) -> str:
        return await copy(self, text)

    def _write_to_terminal(self, sequence: str) -> None:
        # through the driver and on the main thread, as frames are, so that it never falls into the middle of one
        if self._driver is not None and sequence:
            self._driver.write(sequence)

    def line_answered(self) -> None:
        self.line.answered()

    def notify_terminal(self, text: str) -> None:
        self._write_to_terminal(notification(self.settings.bell, text, os.environ))

    def show_status(
        self, text: str, severity: Severity = "information", persistent: bool = False, *, name: str = ""
    ) -> None:
        """Show information in the title line. Warnings and errors appear over the panes and stay longer."""
        if severity == "information":
            self.main.title_line.show_notice(text, name)
            return
        if persistent:
            self.notify(sanitize(text), severity=severity, markup=False, timeout=UNTIL_DISMISSED_SECONDS)
            return
        self.notify(sanitize(text), severity=severity, markup=False, timeout=NOTICE_SECONDS)
        # Textual does not always repaint the area that an expired notice covered
        self.set_timer(NOTICE_SECONDS + 0.3, self.repaint)

    def _show_status_later(self, text: str) -> None:
        self.call_later(self.show_status, text)

    def save_settings(self) -> None:
        """Save the settings. If that fails, only log the error."""
        if not self.is_mounted_and_running():
            return
        self.main.update_settings()
        self.settings.theme = self.theme
        if error := save_settings(self.settings, self.draft):
            self.log(error)

    # input

    async def on_event(self, event: events.Event) -> None:
        """Handle an event once the input queue has released it."""
        if self.input_queue.intercept(event):
            return
        if isinstance(event, events.Resize):
            self._send_whole_frame()  # the terminal may have moved its lines
        if isinstance(event, events.Paste) and not event.is_forwarded:
            event.text = self._clean_paste(event.text)
        await super().on_event(event)

    @property
    def clipboard(self) -> str:
        """The text that ctrl+v inserts."""
        return self._clean_paste(super().clipboard)

    def _clean_paste(self, text: str) -> str:
        return clean_paste(text, on_one_line=isinstance(self.focused, Input))

    def on_descendant_focus(self) -> None:
        if isinstance(self.focused, (Input, TextArea)):
            self.focused.cursor_blink = False  # a blinking cursor sends 1.5 KB/s
        self._mark_active_pane()

    def on_descendant_blur(self) -> None:
        self._mark_active_pane()

    def _mark_active_pane(self) -> None:
        """Mark the pane that holds the focus. With :focus-within, Textual would also restyle everything in the pane."""
        focused = self.focused
        active = (
            next((node for node in focused.ancestors_with_self if node.has_class("pane")), None) if focused else None
        )
        marked = self.screen.query(".pane.-active").nodes
        changed = [pane for pane in (*marked, active) if pane is not None and (pane is active) != (pane in marked)]
        for pane in changed:
            pane.set_class(pane is active, "-active", update=False)
        self.stylesheet.update_nodes(changed)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if action == "field" and isinstance(self.focused, CompositionInput):
            return not self.focused.dropdown.display
        # a dialog must be answered first; the sweep and models screens are not dialogs
        return action != "leave" or self.screen in (self.main, self.main.sweep.screen, self.main.models.screen)

    def action_field(self, direction: int) -> None:
        self.screen.focus_next() if direction > 0 else self.screen.focus_previous()

    def action_explain(self, page: str) -> None:
        """Show the help of a dialog."""
        from softprompt_tui.screens.help import HelpScreen

        self.push_screen(HelpScreen(page))

    def action_dismiss_notices(self) -> None:
        self.clear_notifications()
        self._send_whole_frame()  # people also press escape when something else has written on the terminal
        self.repaint()

    def repaint(self) -> None:
        """Paint the whole screen again, if there still is one."""
        if self.is_mounted_and_running():  # its timer outlives the screens
            self.screen.refresh()

    def _send_whole_frame(self) -> None:
        if isinstance(self._driver, TerminalDriver):
            self._driver.frame_diff.forget()

    def action_reconnect(self) -> None:
        if self.worker.state == "up":
            self.show_status("the worker is already running")
        self.worker.reconnect()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:  # noqa: ARG002
        yield from commands(self.main)
        yield SystemCommand("Start the worker again", "ctrl+r, if it has stopped", self.action_reconnect)
        yield SystemCommand("Theme", "dark, light, high contrast, the terminal's 16 colors", self.action_change_theme)
        yield SystemCommand("Screenshot", "as SVG", partial(self.deliver_screenshot))
        yield SystemCommand("Help", "F1", self.main.action_help)
        yield SystemCommand("Quit", "ctrl+q; training continues", self.action_leave)

    # quitting

    @work(group="leave")
    async def action_leave(self) -> None:
        """Quit. If any run is active, ask first."""
        if sum(worker.group == "leave" and not worker.is_finished for worker in self.workers) > 1:
            return  # the question is already on the screen
        if await self.quit.confirm_quit():
            self.quit_now()

    def quit_now(self) -> None:
        """Quit without asking. Training continues in the worker."""
        self.save_settings()
        self.exit()

    @property
    def crash(self) -> BaseException | None:
        """The exception that ended the interface, or None."""
        return self._exception.error if isinstance(self._exception, WorkerFailed) else self._exception

    def panic(self, *renderables: object) -> None:  # noqa: ARG002
        """End at once without printing a traceback. The caller reports `crash`."""
        self._return_code = 1
        with suppress(Exception):  # the terminal must be restored in any case
            self.save_settings()
        self._close_messages_no_wait()

    def _fatal_error(self) -> None:
        self.panic()
