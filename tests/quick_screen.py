"""A faster version of pyte's screen and stream.

pyte reads its input character by character, which took more processor time than the interfaces that it displayed. This
version has a fast path for what an interface sends most: styles, cursor positions, and text with one cell per
character. It leaves everything else to pyte, and a test compares both versions.
"""

from __future__ import annotations

import functools
import re

import pyte
from pyte import charsets, modes
from pyte.screens import Char
from wcwidth import wcwidth

_TOKEN = re.compile(r"\x1b\[([0-9;]*)([mH])|(" + pyte.Stream._text_pattern.pattern + ")")


@functools.cache
def _is_narrow(char: str) -> bool:
    return wcwidth(char) == 1


class QuickScreen(pyte.Screen):
    def reset(self) -> None:
        self._styles: dict[tuple[str, Char, Char], Char] = {}  # by parameters, current style, default style
        self._cells: dict[Char, dict[str, Char]] = {}  # by style and character
        super().reset()

    def style(self, parameters: str) -> None:
        """Set the style as `select_graphic_rendition` does, but cached."""
        current, default = self.cursor.attrs, self.default_char
        style = self._styles.get((parameters, current, default))
        if style is None:
            self.select_graphic_rendition(*_parse_numbers(parameters))
            self._styles[parameters, current, default] = self.cursor.attrs
        else:
            self.cursor.attrs = style

    def draw(self, data: str) -> None:
        cursor = self.cursor
        end = cursor.x + len(data)
        has_default_mode = not self.charset and self.g0_charset is charsets.LAT1_MAP and modes.IRM not in self.mode
        if (
            end > self.columns
            or not has_default_mode
            or not ((data.isascii() and data.isprintable()) or all(map(_is_narrow, data)))
        ):
            super().draw(data)
            return
        line, cells = self.buffer[cursor.y], self._cells.setdefault(cursor.attrs, {})
        for x, char in enumerate(data, cursor.x):
            cell = cells.get(char)
            if cell is None:
                cell = cells[char] = cursor.attrs._replace(data=char)
            line[x] = cell
        cursor.x = end
        self.dirty.add(cursor.y)


class QuickStream(pyte.ByteStream):
    listener: QuickScreen

    def _send_to_parser(self, data: str) -> bool | None:
        try:
            return super()._send_to_parser(data)
        except TypeError:  # a truncated sequence that runs into the next one; terminals ignore surplus parameters
            return True

    def feed(self, data: bytes) -> None:
        if not self.use_utf8:
            super().feed(data)
            return
        text, offset, screen = self.utf8_decoder.decode(data), 0, self.listener
        while offset < len(text):
            match = _TOKEN.match(text, offset) if self._taking_plain_text else None
            if match is None:
                self._taking_plain_text = self._send_to_parser(text[offset])
                offset += 1
                continue
            offset = match.end()
            if match[3]:
                screen.draw(match[3])
            elif match[2] == "m":
                screen.style(match[1])
            else:
                screen.cursor_position(*_parse_numbers(match[1]))


def _parse_numbers(parameters: str) -> list[int]:
    return [min(int(number or 0), 9999) for number in parameters.split(";")]
