"""Keys, pastes and the mouse in their order: each reaches the interface when the one before it has had its whole effect."""

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

ORDERED = (InputEvent, Paste, AppFocus, AppBlur)
# Groups of background work that ends in a dialog or moves the focus: whatever is typed waits for it.
OPENING = frozenset({"dialogs", "sweep", "leave", "compositions"})
# Groups of background work on which no key depends. Of all others, typing into a text field does not wait.
BESIDE = frozenset(
    {"line", "keys", "draft", "busy", "count", "models", "warm", "similarity", "curve", "read", "readout", "opened"}
)
PATIENCE = 5.0  # seconds: work that takes longer is waited for no more
CALM_TURNS = 2  # turns of the event loop in which nothing may happen
BUSY_TURNS = 200  # turns without a pause; then the processor is left to others
POLL_SECONDS = 0.002
IN_INPUT = frozenset({"backspace"})
IN_TEXT_AREA = frozenset({"backspace", "enter", "delete", "left", "right", "home", "end"})
QUIT = "ctrl+q"


class InputQueue:
    """Hold back what is typed until the interface has settled.

    Textual gives a key to the focused widget and goes on: bindings, messages, focus changes and background work that
    the key causes happen later, and the next key of a burst does not see them. Settled means: no message waits
    anywhere, no widget is being mounted, no layout is due, and no background work runs that a key could depend on.
    """

    def __init__(self, app: App[Any], warn: Callable[[str], None], paint_due: Callable[[], bool]) -> None:
        self.app = app
        self._warn = warn
        self._paint_due = paint_due  # paints what is drawn only now and then, and says whether something was due
        self._events: deque[Message] = deque()
        self._arrived = asyncio.Event()
        self._admitted: set[Message] = set()  # handed on, and not handled yet
        self._written_in: Widget | None = None  # the field that the last event went to as text
        self._dialogs: dict[Worker[Any], Screen[Any]] = {}  # which dialog a worker waits for
        self._overdue: set[Worker[Any]] = set()

    def takes(self, event: Message) -> bool:
        """Queue an event of the terminal; return false if it is its turn, or if it is no such event."""
        if not isinstance(event, ORDERED):
            return False
        if self.app._exit or not self.app.screen_stack:  # the interface is being left
            return True
        if event.is_forwarded or event in self._admitted:
            self._admitted.discard(event)
            return False
        self._events.append(event)
        self._arrived.set()
        return True

    def waits_for(self, worker: Worker[Any], dialog: Screen[Any]) -> None:
        """Note that a worker goes on when `dialog` is closed: until then keys belong to the dialog."""
        self._dialogs[worker] = dialog

    async def run(self) -> None:
        """Hand on the events, one after another, until cancelled."""
        while True:
            while not self._events:
                self._arrived.clear()
                await self._arrived.wait()
            if not self._is_more_text():
                await self._settle()
                if self._paint_due():  # the key acts on what stands there
                    await self._settle()
            if self._events:
                event = self._events.popleft()
                self._written_in = self.app.focused if _is_text(event, self.app.focused) else None
                self._admitted.add(event)
                self.app.post_message(event)

    def _is_more_text(self) -> bool:
        """Return whether the first event follows others as text of one field: the field itself keeps their order."""
        return (
            self._written_in is not None
            and _is_text(self._events[0], self._written_in)
            and self.app.focused is self._written_in
        )

    async def _settle(self) -> None:
        """Wait until the first event of the queue can be handled."""
        began, calm, busy = time.monotonic(), 0, 0
        while calm < CALM_TURNS and self._events:
            if time.monotonic() - began > PATIENCE:
                self._give_up()
                return
            if self._is_busy():
                calm, busy = 0, busy + 1
                await asyncio.sleep(0 if busy < BUSY_TURNS else POLL_SECONDS)
            elif self._is_held(self._events[0]):
                calm = 0
                await asyncio.sleep(POLL_SECONDS)
            else:
                calm += 1
                await asyncio.sleep(0)

    def _is_busy(self) -> bool:
        """Return whether a message waits, or a widget is being mounted."""
        return any(map(_is_working, filter(None, (self.app, self.app.focused)))) or any(
            map(_is_working, _nodes(self.app))
        )

    def _is_held(self, event: Message) -> bool:
        """Return whether `event` depends on a layout or on work that is not done."""
        working = [worker for worker in self._working() if worker not in self._overdue]
        if any(worker.group in OPENING for worker in working):
            return True
        if _is_typing(event, self.app.focused):
            return False
        screen = self.app.screen
        if screen._layout_required or screen._callbacks:
            return True
        return bool(working) and not (isinstance(event, Key) and event.key == QUIT)

    def _working(self) -> list[Worker[Any]]:
        """The workers that keys wait for."""
        self._dialogs = {worker: screen for worker, screen in self._dialogs.items() if not worker.is_finished}
        self._overdue = {worker for worker in self._overdue if not worker.is_finished}
        open_dialogs: Collection[Screen[Any]] = self.app.screen_stack
        return [
            worker
            for worker in self.app.workers
            if worker.group not in BESIDE and not worker.is_finished and self._dialogs.get(worker) not in open_dialogs
        ]

    def _give_up(self) -> None:
        """Stop waiting. Keys meant for a dialog that did not open must not act on the panes, so they are dropped."""
        late = [worker for worker in self._working() if worker not in self._overdue]
        self._overdue.update(late)
        if any(worker.group in OPENING for worker in late):
            while self._events and not (isinstance(event := self._events[0], Key) and event.key == QUIT):
                self._events.popleft()
            self._warn("this takes long; what was typed meanwhile is dropped")


def _nodes(app: App[Any]) -> Iterator[DOMNode]:
    nodes: list[DOMNode] = [*app.screen_stack]
    while nodes:
        node = nodes.pop()
        yield node
        nodes.extend(node.children)


def _is_working(node: DOMNode) -> bool:
    waits = node.message_queue_size or node._pending_message is not None or not node._is_mounted
    return bool(waits) and not node._closing


def _is_text(event: Message, focused: Widget | None) -> bool:
    """Return whether the focused field takes an event as text, without a binding."""
    is_text = isinstance(event, Paste) or (isinstance(event, Key) and event.is_printable)
    return is_text and isinstance(focused, (Input, TextArea))


def _is_typing(event: Message, focused: Widget | None) -> bool:
    """Return whether an event only changes the text of the focused field, or moves in it."""
    keys = IN_TEXT_AREA if isinstance(focused, TextArea) else IN_INPUT if isinstance(focused, Input) else ()
    return _is_text(event, focused) or (isinstance(event, Key) and event.key in keys)
