"""Make untrusted text visible and short. Everything that draws, prints or shows text from outside uses this module."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any

MAX_REPR_LENGTH = 160  # characters
FLOAT_NOISE = 1e-6  # float32 gives two equal texts a similarity this far from 1
MAX_TEXT_LENGTH = 60  # characters of a text in a repr, with its quotes, if there is room
_CONTROL_PICTURES = 0x2400  # U+2400 and up: the visible symbol of each control character
UNSAFE_CATEGORIES = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def sanitize(text: str) -> str:
    """Return `text` with every control, reordering and invisible character replaced by a visible one.

    ESC becomes ␛, a newline ␊, a right-to-left override \\u202e. Printable text is unchanged.
    All text from outside passes through here before it is drawn or printed.
    """
    return text if text.isprintable() else "".join(map(_make_visible, text))


def _make_visible(char: str) -> str:
    code = ord(char)
    if char == " " or unicodedata.category(char) not in UNSAFE_CATEGORIES:
        return char
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    if code == 0x7F:
        return "␡"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def short_repr(kind: str, *texts: str, **values: Any) -> str:
    """Return a repr such as `SoftPrompt('a red fox…', tokens=3)`, of at most MAX_REPR_LENGTH characters.

    Args:
        texts: arguments without a name.
        values: arguments with a name. None, "" and empty sequences are left out.
    """
    known = {name: value for name, value in values.items() if value is not None and not _is_empty(value)}
    for max_length in (MAX_TEXT_LENGTH, 30, 20, 10, 4):
        parts = [quote(text, max_length) for text in texts]
        parts += [f"{name}={_show(value, max_length)}" for name, value in known.items()]
        shown = f"{kind}({', '.join(parts)})"
        if len(shown) <= MAX_REPR_LENGTH:
            return shown
    return f"{shown[: MAX_REPR_LENGTH - 1]}…"


def quote(text: object, max_length: int = MAX_TEXT_LENGTH) -> str:
    """Return the repr of a text, cut to `max_length` characters."""
    shown = repr(str(text)[: max_length + 1])
    cut = str(text)[:max_length]
    while len(shown) > max_length:
        cut = cut[:-1]
        shown = repr(f"{cut}…")
    return shown


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 entry" or "1,234 entries"."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def format_number(value: Any, digits: int = 4) -> str:
    """Return a number for display, or "?" if it is none. Never raises and is never long.

    A number that is just below 1 keeps one more digit and is rounded down, so that 0.99998 does not look like 1.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return "?"
    if not math.isfinite(number):
        return str(number)
    if 1 - 0.5 * 10.0**-digits <= number < 1 - FLOAT_NOISE:
        return f"{math.floor(number * 10 ** (digits + 1)) / 10 ** (digits + 1):.{digits + 1}f}"
    return f"{number:.{digits}f}" if 10.0**-digits <= abs(number) < 1e6 or not number else f"{number:.3g}"


def _is_empty(value: Any) -> bool:
    return isinstance(value, str | Sequence) and not len(value)


def _show(value: Any, max_length: int) -> str:
    if isinstance(value, str):
        return quote(value, max_length)
    if isinstance(value, int) and abs(value) < 1 << 64:
        return str(value)
    if isinstance(value, tuple | list):
        is_shape = all(type(item) is int and abs(item) < 1 << 64 for item in value)
        text = ", ".join(map(str, value[:max_length]))
        return f"({text})" if is_shape and len(text) <= max_length else quote(text, max_length)
    return format_number(value)
