"""Numbers as people read them."""

from __future__ import annotations

import pytest

from softprompt_tui.rendering.numbers import format_number


@pytest.mark.parametrize("value", [0.5, 0.99994, 0.99995, 0.99998, 0.999998, 0.0001, 0.00002, -0.3])
def test_a_number_never_looks_like_another_one_that_matters(value: float) -> None:
    shown = format_number(value)
    assert float(shown) not in (0.0, 1.0)
    assert abs(float(shown) - value) < 1e-4
    assert len(shown) <= 8


def test_what_float32_cannot_tell_from_1_is_1() -> None:
    assert format_number(1.0) == format_number(1 - 1e-7) == "1.0000"
    assert format_number(None) == "-"
