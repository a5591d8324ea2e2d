"""Text from outside cannot control the terminal."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt_tui.rendering.sanitize import sanitize


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a fox", "a fox"),
        ("雪 é 🙂", "雪 é 🙂"),
        ("\x1b[31m", "␛[31m"),
        ("a\nb\tc\x7f", "a␊b␉c␡"),
        ("\u202eabc", "\\u202eabc"),
        ("\x9b31m", "\\u009b31m"),
        ("[/bold]", "[/bold]"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_control_characters_become_visible_and_the_rest_stays(text: str, shown: str) -> None:
    assert sanitize(text) == shown


@given(st.text())
def test_no_control_characters_are_left(text: str) -> None:
    assert all(unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for c in sanitize(text))
