"""Turn the terminal's bytes into Textual events. No input crashes the interface; pasted text never acts as keys."""

from __future__ import annotations

import os
import re
import selectors
import time
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from textual._xterm_parser import XTermParser
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Paste
from textual.message import Message

from softprompt_tui.terminal_output import FrameDiff

PASTE_START, PASTE_END = b"\x1b[200~", b"\x1b[201~"
MODE_ANSWER, MODE_ANSWER_BYTES = re.compile(rb"\x1b\[\?2026;\d+\$y"), 12  # and the longest one
LEGACY_MOUSE, LEGACY_MOUSE_BYTES = b"\x1b[M", 3  # button, column and row: one byte each, not always valid UTF-8
SPLIT_SECONDS = 1.0  # longest gap between the bytes of one key; a lost packet is resent within this time
TICK_SECONDS = 0.1
ESCAPE = b"\x1b"
# ctrl+letter and enter. A slow line joins the escape key and the next key, which reads like alt and that key: alt with
# these does nothing here. Alt+backspace, and Linux's own shift+tab, are left alone.
CONTROL_KEYS = bytes(set(range(0x01, 0x1B)) - set(b"\b\t"))
ALT_KEYS = bytes(set(range(0x20, 0x7F)) - set(b"[O]P^_X"))  # those that start no longer sequence


class InputDecoder:
    """Turns a terminal's bytes into Textual events, however the bytes are split.

    Textual's parser decodes the keys, but is shielded from four things: invalid UTF-8 (replaced by U+FFFD); pastes, in
    which it would take everything after an escape character for keys; gaps between the bytes of one key on a slow
    line, after which it would take the remaining bytes for separate keys; and keys right behind escape, or behind alt
    and a letter, which it would take for a part of that key.
    """

    def __init__(self, on_answer: Callable[[], None] = lambda: None) -> None:
        self._on_answer = on_answer  # called when the terminal has told whether synchronized output is on
        self._parser = XTermParser()
        self._utf8 = getincrementaldecoder("utf-8")("replace")
        self._recent = b""  # the last few bytes, enough for the longest sequence that is looked for
        self._mouse_bytes_left = 0
        self._pasted: bytearray | None = None  # None outside a paste
        self._fed_at = 0.0

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the events that `data` completes."""
        self._fed_at = time.monotonic()
        position = 0
        while position < len(data):
            if self._pasted is None:
                if self._recent.endswith(ESCAPE) and data[position] in CONTROL_KEYS and not self._mouse_bytes_left:
                    yield from self._end_escape()
                yield from self._parse(self._decode(data[position : position + 1]))
                position += 1
                if self._recent[-2:-1] == ESCAPE and data[position - 1] in ALT_KEYS:
                    yield from self._end_escape()
                if self._recent.endswith(PASTE_START):
                    self._pasted = bytearray()
            else:
                searched = max(0, len(self._pasted) - len(PASTE_END) + 1)
                before = len(self._pasted)
                self._pasted += data[position:]
                end = self._pasted.find(PASTE_END, searched)
                if end < 0:
                    return
                position += end + len(PASTE_END) - before
                text = self._pasted[:end].decode("utf-8", "replace")
                self._pasted = None
                self._recent = b""
                yield from self._parse(PASTE_END.decode())
                if text:
                    yield Paste(text)

    def tick(self) -> Iterator[Message]:
        """Yield events that are complete because nothing follows, such as the escape key. Call this when idle."""
        is_inside_key = self._recent.rpartition(b"\x1b")[2][:1] in (b"[", b"O") and b"\x1b" in self._recent
        if is_inside_key and time.monotonic() - self._fed_at < SPLIT_SECONDS:
            return
        if time.monotonic() - self._fed_at >= SPLIT_SECONDS:
            yield from self._parse(self._utf8.decode(b"", final=True))
        yield from self._skip_failures(self._parser.tick())

    def _end_escape(self) -> Iterator[Message]:
        """Yield the escape key, or alt and a key, as if nothing had followed it in time."""
        if self._parser._timeout_time is not None:
            self._parser._timeout_time = 0.0
        yield from self._skip_failures(self._parser.tick())

    def _decode(self, byte: bytes) -> str:
        self._recent = (self._recent + byte)[-MODE_ANSWER_BYTES:]
        if byte == b"y" and MODE_ANSWER.search(self._recent):
            self._on_answer()
        if self._mouse_bytes_left:
            self._mouse_bytes_left -= 1
            return byte.decode("latin-1")
        if self._recent.endswith(LEGACY_MOUSE):
            self._mouse_bytes_left = LEGACY_MOUSE_BYTES
        return self._utf8.decode(byte)

    def _parse(self, text: str) -> Iterator[Message]:
        for char in text:
            yield from self._skip_failures(self._parser.feed(char))

    def _skip_failures(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Skip sequences that crash the parser, such as a number too large for a character, or a size of zero."""
        try:
            for message in messages:
                if not isinstance(message, Paste):  # always empty: the parser only gets its markers
                    yield message
        except Exception:  # the parser cannot continue after an exception
            self._parser = XTermParser()


class TerminalDriver(LinuxDriver):
    """Textual's driver with InputDecoder and FrameDiff. An error in the input thread ends the interface."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.frame_diff = FrameDiff()

    def write(self, data: str) -> None:
        super().write(self.frame_diff.reduce(data))

    def run_input_thread(self) -> None:
        """Read the terminal until the driver stops."""
        try:
            self._read_terminal()
        except Exception as error:
            self._app.call_later(self._app._handle_exception, error)

    def _read_terminal(self) -> None:
        decoder = InputDecoder(getattr(self._app, "line_answered", lambda: None))
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                is_readable = selector.select(TICK_SECONDS)
                for message in decoder.feed(self._read()) if is_readable else decoder.tick():
                    self.process_message(message)

    def _read(self) -> bytes:
        try:
            data = os.read(self.fileno, 4096)
        except BlockingIOError:  # another program on this terminal made it non-blocking and read first
            return b""
        except OSError:  # the terminal is gone; `open_interface` will notice
            data = b""
        if not data:
            self.exit_event.wait(TICK_SECONDS)
        return data


def replace_terminal_driver(driver: type[Driver]) -> type[Driver]:
    """Return TerminalDriver instead of Textual's terminal driver. Keep other drivers, such as the one for browsers."""
    return TerminalDriver if driver is LinuxDriver else driver
