"""What the terminal sends, as Textual's events: bytes of any kind never end the interface, and a paste is never taken for keys."""

from __future__ import annotations

import os
import selectors
import time
from codecs import getincrementaldecoder
from collections.abc import Iterable, Iterator

from textual._xterm_parser import XTermParser
from textual.driver import Driver
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Paste
from textual.message import Message

PASTE_BEGINS, PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"
LEGACY_MOUSE, LEGACY_MOUSE_BYTES = b"\x1b[M", 3  # button and position, each as one byte that need not be UTF-8
SPLIT_SECONDS = 1.0  # the longest gap inside one key's bytes; a lost packet is sent again within that time
TICK_SECONDS = 0.1


class InputDecoder:
    """Turn the bytes of a terminal into Textual's events, in any split.

    Textual's parser reads the keys. Three things it does not see: bytes that are not UTF-8, which become U+FFFD; pastes,
    in which it would take everything after an escape character for keys; and the gap that a slow line leaves between
    the bytes of one key, after which it would take the rest for separate keys.
    """

    def __init__(self) -> None:
        self._parser = XTermParser()
        self._utf8 = getincrementaldecoder("utf-8")("replace")
        self._recent = b""  # as many of the last bytes as the longest marker has
        self._mouse_bytes_left = 0
        self._pasted: bytearray | None = None  # None outside a paste
        self._fed_at = 0.0

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the events that `data` completes."""
        self._fed_at = time.monotonic()
        position = 0
        while position < len(data):
            if self._pasted is None:
                yield from self._parse(self._decode(data[position : position + 1]))
                position += 1
                if self._recent == PASTE_BEGINS:
                    self._pasted = bytearray()
            else:
                searched = max(0, len(self._pasted) - len(PASTE_ENDS) + 1)
                before = len(self._pasted)
                self._pasted += data[position:]
                end = self._pasted.find(PASTE_ENDS, searched)
                if end < 0:
                    return
                position += end + len(PASTE_ENDS) - before
                text = self._pasted[:end].decode("utf-8", "replace")
                self._pasted = None
                self._recent = b""
                yield from self._parse(PASTE_ENDS.decode())
                if text:
                    yield Paste(text)

    def tick(self) -> Iterator[Message]:
        """Yield what is complete because nothing follows it, such as the escape key. Call it while nothing arrives."""
        is_inside_key = self._recent.rpartition(b"\x1b")[2][:1] in (b"[", b"O") and b"\x1b" in self._recent
        if is_inside_key and time.monotonic() - self._fed_at < SPLIT_SECONDS:
            return
        if time.monotonic() - self._fed_at >= SPLIT_SECONDS:
            yield from self._parse(self._utf8.decode(b"", final=True))
        yield from self._guarded(self._parser.tick())

    def _decode(self, byte: bytes) -> str:
        self._recent = (self._recent + byte)[-len(PASTE_BEGINS) :]
        if self._mouse_bytes_left:
            self._mouse_bytes_left -= 1
            return byte.decode("latin-1")
        if self._recent.endswith(LEGACY_MOUSE):
            self._mouse_bytes_left = LEGACY_MOUSE_BYTES
        return self._utf8.decode(byte)

    def _parse(self, text: str) -> Iterator[Message]:
        for char in text:
            yield from self._guarded(self._parser.feed(char))

    def _guarded(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Pass over a sequence at which the parser fails: a number too large for a character, a size of zero."""
        try:
            for message in messages:
                if not isinstance(message, Paste):  # the parser has seen a paste's two ends only
                    yield message
        except Exception:  # it cannot go on after any
            self._parser = XTermParser()


class TerminalDriver(LinuxDriver):
    """Textual's driver with our decoder, and with an input thread whose failure is the interface's failure."""

    def run_input_thread(self) -> None:
        """Read the terminal until the driver is stopped."""
        try:
            self._read_terminal()
        except Exception as error:
            self._app.call_later(self._app._handle_exception, error)

    def _read_terminal(self) -> None:
        decoder = InputDecoder()
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
        except OSError:  # the terminal is gone; who opened the interface watches for that
            data = b""
        if not data:
            self.exit_event.wait(TICK_SECONDS)
        return data


def with_our_input(driver: type[Driver]) -> type[Driver]:
    """Replace Textual's driver for terminals by ours; others, such as the one for browsers, stay."""
    return TerminalDriver if driver is LinuxDriver else driver
