"""The one function that text from outside passes before it is drawn or printed."""

from __future__ import annotations

import unicodedata

_PICTURES = 0x2400  # the control characters' own pictures, from U+2400 on
_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def inert(text: str) -> str:
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


def without_steering(text: str) -> str:
    """`text` without the characters that could steer a terminal or reorder text: for editors, in which every character must stay one.

    Newlines and tabs stay, and so does what joins pictures.
    """
    return (
        text
        if text.isprintable()
        else "".join(char for char in text if char in "\n\t\u200d" or unicodedata.category(char) not in _HIDDEN)
    )
