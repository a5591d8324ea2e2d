"""Make untrusted text safe for a terminal."""

from __future__ import annotations

import re
import unicodedata

from softprompt.prompts.visible_text import UNSAFE_CATEGORIES
from softprompt.prompts.visible_text import sanitize as sanitize

_LINE_END = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")


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
            char for char in text if char in "\n\t\u200d" or unicodedata.category(char) not in UNSAFE_CATEGORIES
        )
    )
