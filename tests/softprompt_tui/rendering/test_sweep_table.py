"""The results of a sweep as text."""

from __future__ import annotations

import pytest
from rich.style import Style

from softprompt.prompts.sweep_result import SweepResult
from softprompt_tui.rendering.sweep_table import plot_sweep
from softprompt_tui.rendering.sweep_text import describe_sweep

ROWS = (SweepResult(1, 0.9), SweepResult(4, 0.99, knee=True), SweepResult(16, None))
WORDS = (SweepResult(1, 0.9, 0.8, 0.7, 0.6, "fox " * 40, 0.5), SweepResult(2, 0.99, 0.9, 0.8, 0.6, "fox snow", 0.6))
MODEL = (SweepResult(1, 0.7, kl=0.3, kl_share=0.9), SweepResult(8, 0.8, kl=0.1, kl_share=0.3))


def lines(rows: tuple[SweepResult, ...], objective: str = "", width: int = 80) -> list[str]:
    return [line.plain.rstrip() for line in describe_sweep(rows, objective, width, Style())]


def test_a_running_sweep_shows_what_is_known() -> None:
    heading, with_1, with_4, with_16 = lines(ROWS)
    assert heading.split() == ["tokens", "similar"]
    assert with_4.count("━") == 2 * with_1.count("━")  # two nines
    assert "4 knee" in with_4
    assert with_16.split() == ["16", "…"]


def test_a_finished_sweep_shows_the_nearest_words() -> None:
    heading, one, two = lines(WORDS, width=100)
    assert heading.split() == ["tokens", "similar", "composed", "worst", "as", "text", "nearest", "words"]
    assert one.endswith("…")
    assert two.endswith("fox snow")


def test_a_narrow_pane_shows_figures_instead_of_the_first_of_the_words() -> None:
    heading, one, two = lines(WORDS, width=37)
    assert heading.split() == ["tokens", "similar", "composed", "worst"]
    assert one.split() == ["1", "0.9000", "0.8000", "0.7000"]
    assert "fox" not in two


def test_a_language_model_has_its_own_figures() -> None:
    heading, one, _ = lines(MODEL, "distill")
    assert heading.split() == ["tokens", "agree", "KL", "of", "floor"]
    assert one.split()[-2:] == ["0.3000", "0.9000"]
    plot = plot_sweep(MODEL, 60, 20, objective="distill")
    assert "KL" in plot
    assert "1 - agreement" in plot


@pytest.mark.parametrize("width", range(20, 200, 9))
def test_lines_fit(width: int) -> None:
    for rows, objective in ((ROWS, ""), (WORDS, ""), (MODEL, "distill")):
        assert all(len(line) <= width for line in lines(rows, objective, width))
