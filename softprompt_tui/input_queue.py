"""Deliver keys, pastes and mouse events in order: each event waits until the previous one has taken full effect."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import Any

from textual.app import App
from textual.dom import DOMNode
from textual.events import AppBlur, AppFocus, InputEvent, Key, Paste
from textual.message import Message
from textual.screen import Screen
from textual.widget import Widget
from textual.widgets import Input, TextArea
from textual.worker import Worker

ORDERED_EVENTS = (InputEvent, Paste, AppFocus, AppBlur)
# Groups of background work that opens a dialog or moves the focus. All input waits for this work.
DIALOG_GROUPS = frozenset({"dialogs", "sweep", "leave", "compositions"})
# Groups of background work that the next key may depend on. Keys wait for it, unless they type into a text field.
AWAITED_GROUPS = frozenset(
    {"copying", "entries", "folder", "keep", "library", "names", "pages", "requests", "swept", "train"}
)
# Groups of background work that no key depends on.
INDEPENDENT_GROUPS = frozenset({
    "line", "keys", "draft", "busy", "count", "models", "warm", "similarity", "curve", "read", "readout", "opened",
    "devices", "watch-devices", "pulls",
})  # fmt: skip
MAX_WAIT_SECONDS = 5.0  # the queue stops waiting for background work after this time
IDLE_TURNS = 2  # the interface has settled after this many idle turns of the event loop
MAX_BUSY_TURNS = 200  # busy turns of the event loop before the queue pauses between turns
POLL_SECONDS = 0.002
INPUT_KEYS = frozenset({"backspace"})
TEXT_AREA_KEYS = frozenset({"backspace", "enter", "delete", "left", "right", "home", "end"})
QUIT_KEY = "ctrl+q"


class InputQueue:
    """A queue that holds input back until the interface has settled.

    Textual hands a key to the focused widget and continues. The key's bindings, messages, focus changes and background
    work run later, too late for the next key in a burst. The interface has settled when no message is pending, no
    widget is mounting, no layout is due, and no background work that a key could depend on is running.
    """

    def __init__(self, app: App[Any], warn: Callable[[str], None], paint_pending: Callable[[], bool]) -> None:
        self.app = app
        self._warn = warn
        self._paint_pending = paint_pending  # paints content whose repaint is overdue; returns whether there was any
        self._events: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._admitted: set[Message] = set()  # released, but not handled yet
        self._text_field: Widget | None = None  # the field that inserted the last event as text
        self._dialogs: dict[Worker[Any], Screen[Any]] = {}  # the dialog that each worker is waiting for
        self._overdue: set[Worker[Any]] = set()

    def intercept(self, event: Message) -> bool:
        """Queue an input event. Return False if the event is not input or has already been released."""
        if not isinstance(event, ORDERED_EVENTS):
            return False
        if self.app._exit or not self.app.screen_stack:  # the interface is quitting
            return True
        if event.is_forwarded or event in self._admitted:
            self._admitted.discard(event)
            return False
        self._events.append(event)
        self._arrived.set()
        return True

    def note_dialog(self, worker: Worker[Any], dialog: Screen[Any]) -> None:
        """Note that a worker is waiting for `dialog`. While the dialog is open, keys do not wait for the worker."""
        self._dialogs[worker] = dialog

    async def run(self) -> None:
        """Release the events one by one until cancelled."""
        while True:
            while not self._events:
                self._arrived.clear()
                await self._arrived.wait()
            if not self._is_more_text():
                await self._settle()
                if self._paint_pending():  # the key must act on what the screen shows
                    await self._settle()
            if self._events:
                event = self._events.popleft()
                self._text_field = self.app.focused if _is_text(event, self.app.focused) else None
                self._admitted.add(event)
                self.app.post_message(event)

    def _is_more_text(self) -> bool:
        """Return whether the first event is more text for the same field. The field itself keeps text in order."""
        return (
            self._text_field is not None
            and _is_text(self._events[0], self._text_field)
            and self.app.focused is self._text_field
        )

    async def _settle(self) -> None:
        """Wait until the first event in the queue can be released."""
        started, idle, busy = time.monotonic(), 0, 0
        while idle < IDLE_TURNS and self._events:
            if time.monotonic() - started > MAX_WAIT_SECONDS:
                self._stop_waiting()
                return
            if self._is_busy():
                idle, busy = 0, busy + 1
                await asyncio.sleep(0 if busy < MAX_BUSY_TURNS else POLL_SECONDS)
            elif self._must_wait(self._events[0]):
                idle = 0
                await asyncio.sleep(POLL_SECONDS)
            else:
                idle += 1
                await asyncio.sleep(0)

    def _is_busy(self) -> bool:
        """Return whether a message is pending or a widget is mounting."""
        return any(map(_has_work, filter(None, (self.app, self.app.focused)))) or any(map(_has_work, _nodes(self.app)))

    def _must_wait(self, event: Message) -> bool:
        """Return whether `event` depends on a pending layout or on background work."""
        workers = [worker for worker in self._blocking_workers() if worker not in self._overdue]
        if any(worker.group in DIALOG_GROUPS for worker in workers):
            return True
        if _is_typing(event, self.app.focused):
            return False
        screen = self.app.screen
        if screen._layout_required or screen._callbacks:
            return True
        return bool(workers) and not (isinstance(event, Key) and event.key == QUIT_KEY)

    def _blocking_workers(self) -> list[Worker[Any]]:
        """Return the running workers that keys wait for."""
        self._dialogs = {worker: screen for worker, screen in self._dialogs.items() if not worker.is_finished}
        self._overdue = {worker for worker in self._overdue if not worker.is_finished}
        open_dialogs: Collection[Screen[Any]] = self.app.screen_stack
        return [
            worker
            for worker in self.app.workers
            if worker.group not in INDEPENDENT_GROUPS
            and not worker.is_finished
            and self._dialogs.get(worker) not in open_dialogs
        ]

    def _stop_waiting(self) -> None:
        """Stop waiting. If a dialog has not opened, drop the keys meant for it: they must not act on the panes."""
        late = [worker for worker in self._blocking_workers() if worker not in self._overdue]
        self._overdue.update(late)
        if any(worker.group in DIALOG_GROUPS for worker in late):
            while self._events and not (isinstance(event := self._events[0], Key) and event.key == QUIT_KEY):
                self._events.popleft()
            self._warn("this is taking too long; the keys typed in the meantime were dropped")


def _nodes(app: App[Any]) -> Iterator[DOMNode]:
    nodes: list[DOMNode] = [*app.screen_stack]
    while nodes:
        node = nodes.pop()
        yield node
        nodes.extend(node.children)


def _has_work(node: DOMNode) -> bool:
    has_work = node.message_queue_size or node._pending_message is not None or not node._is_mounted
    return bool(has_work) and not node._closing


def _is_text(event: Message, focused: Widget | None) -> bool:
    """Return whether the focused field inserts the event as text instead of running a binding."""
    if not isinstance(focused, (Input, TextArea)):
        return False
    if isinstance(event, Key):
        return event.is_printable and focused.check_consume_key(event.key, event.character)
    return isinstance(event, Paste)


def _is_typing(event: Message, focused: Widget | None) -> bool:
    """Return whether an event only edits the focused field or moves the cursor in it."""
    keys = TEXT_AREA_KEYS if isinstance(focused, TextArea) else INPUT_KEYS if isinstance(focused, Input) else ()
    return _is_text(event, focused) or (isinstance(event, Key) and event.key in keys)
