"""Make untrusted text safe for a terminal."""

from __future__ import annotations

import re
import unicodedata

_CONTROL_PICTURES = 0x2400  # U+2400 and up: the visible symbol of each control character
_LINE_END = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def sanitize(text: str) -> str:
    """Return `text` with every control, reordering and invisible character replaced by a visible one.

    ESC becomes ␛, a newline ␊, a right-to-left override \\u202e. Printable text is unchanged.
    All text from outside passes through here before it is drawn or printed.
    """
    return text if text.isprintable() else "".join(map(_make_visible, text))


def _make_visible(char: str) -> str:
    code = ord(char)
    if char == " " or unicodedata.category(char) not in _UNSAFE_CATEGORIES:
        return char
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    if code == 0x7F:
        return "␡"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clean_paste(text: str, on_one_line: bool) -> str:
    """Return pasted text without control characters. With `on_one_line`, line breaks become spaces.

    tmux, xterm and VTE send a line break as CR.
    """
    text = strip_control_chars(_LINE_END.sub("\n", text))
    if not on_one_line:
        return text
    text = text.replace("\t", " ")
    return " ".join(line.strip() for line in text.split("\n") if line.strip()) if "\n" in text else text


def strip_control_chars(text: str) -> str:
    """Return `text` without control and reordering characters.

    Meant for editors: `sanitize` may replace one character with several, but this function only removes characters.
    Keeps newlines, tabs and the zero-width joiner used in emoji.
    """
    return (
        text
        if text.isprintable()
        else "".join(
            char for char in text if char in "\n\t\u200d" or unicodedata.category(char) not in _UNSAFE_CATEGORIES
        )
    )
