"""Notify the user through the terminal: a bell, or a desktop notification (OSC 9 or OSC 777)."""

from __future__ import annotations

from collections.abc import Mapping

from softprompt.errors import shorten
from softprompt_tui import PROGRAM
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.services.clipboard import wrap_for_screen

BELL = "\a"
MAX_TEXT_LENGTH = 120  # characters; notifications show one or two lines


def notification(style: str, text: str, environment: Mapping[str, str]) -> str:
    """Return what to write to the terminal, or "" if notifications are off.

    Args:
        style: "bell", "osc9", "osc777", or anything else for none.
        text: may come from outside, such as an error message.
        environment: says whether tmux or GNU screen is in between.
    """
    if style == "bell":
        return BELL
    # a semicolon separates the fields of a sequence, and some terminals take OSC 9 with a number for other commands
    body = shorten(sanitize(text).replace(";", ","), MAX_TEXT_LENGTH)
    if style == "osc9":
        sequence = f"\x1b]9;{PROGRAM}: {body}{BELL}"
    elif style == "osc777":
        sequence = f"\x1b]777;notify;{PROGRAM};{body}{BELL}"
    else:
        return ""
    # tmux and screen drop both sequences unless they are wrapped, and tmux even then unless `allow-passthrough` is on.
    # The bell arrives in any case, and marks the window.
    if environment.get("TMUX"):
        doubled = sequence.replace("\x1b", "\x1b\x1b")
        return f"\x1bPtmux;{doubled}\x1b\\{BELL}"
    if environment.get("STY"):
        return f"{wrap_for_screen(sequence)}{BELL}"
    return sequence
