"""The one function that text from outside passes before it is drawn or printed."""

from __future__ import annotations

import re
import unicodedata

_PICTURES = 0x2400  # the control characters' own pictures, from U+2400 on
_LINE_END = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def sanitize(text: str) -> str:
    """`text` with every character that could steer a terminal, reorder or hide text made visible.

    ESC becomes ␛, a newline ␊, a right-to-left override \\u202e; everything that prints stays as it is.
    """
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(char: str) -> str:
    code = ord(char)
    if char == " " or unicodedata.category(char) not in _HIDDEN:
        return char
    if code < 0x20:
        return chr(_PICTURES + code)
    if code == 0x7F:
        return "␡"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def pasted(text: str, on_one_line: bool) -> str:
    """Return pasted text as an editor takes it, or a field that has one line: there line breaks become spaces.

    tmux, xterm and VTE send a line break as CR.
    """
    text = without_steering(_LINE_END.sub("\n", text))
    if not on_one_line:
        return text
    text = text.replace("\t", " ")
    return " ".join(line.strip() for line in text.split("\n") if line.strip()) if "\n" in text else text


def without_steering(text: str) -> str:
    """`text` without the characters that could steer a terminal or reorder text: for editors, in which every character must stay one.

    Newlines and tabs stay, and so does what joins pictures.
    """
    return (
        text
        if text.isprintable()
        else "".join(char for char in text if char in "\n\t\u200d" or unicodedata.category(char) not in _HIDDEN)
    )
