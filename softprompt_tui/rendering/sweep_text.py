"""The results of a sweep as lines of text, for the readout pane."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.style import Style
from rich.text import Text

from softprompt.prompts.sweep_result import SweepResult
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.rendering.sweep_table import sweep_measures

COUNT_CELLS, FIGURE_CELLS = 8, 9  # of the columns in the readout pane
BARS_FROM_WIDTH, BAR_CELLS = 56, 18  # with the gap behind a bar
MIN_DISTANCE = 1e-6  # from 1; a smaller one is rounding
MIN_WORDS_CELLS = 24  # fewer cells show the same first words in every line, so they have more figures instead


def describe_sweep(rows: Sequence[SweepResult], objective: str, width: int, bar: Style) -> list[Text]:
    """Return a heading and a line for each token count: its figures and its nearest words, as far as they are known.

    The bars are on a log scale: one of twice the length is for a tenfold smaller distance from 1.
    """
    first, *others = sweep_measures(objective)
    others = [measure for measure in others if any(getattr(row, measure.field) is not None for row in rows)]
    bar_cells = BAR_CELLS if width >= BARS_FROM_WIDTH else 0
    room = width - COUNT_CELLS - FIGURE_CELLS - bar_cells
    has_words = room >= MIN_WORDS_CELLS and any(row.readout_text for row in rows)
    room -= has_words * MIN_WORDS_CELLS
    others = others[: max(0, room // FIGURE_CELLS)]
    nines = [_nines(getattr(row, first.field)) for row in rows]
    longest = max([0.0, *nines])
    heading = f"{'tokens':<{COUNT_CELLS}}{first.label:<{FIGURE_CELLS + bar_cells}}"
    heading += "".join(f"{measure.label:<{FIGURE_CELLS}}" for measure in others) + "nearest words" * has_words
    lines = [Text(heading[:width], "dim")]
    for row, share in zip(rows, nines, strict=True):
        line = Text.assemble(f"{row.tokens:>2} ", (f"{'knee' if row.knee else '':<{COUNT_CELLS - 3}}", "bold"))
        line.append(f"{_format(getattr(row, first.field)):<{FIGURE_CELLS}}", "bold")
        if bar_cells:
            filled = round(share / longest * (bar_cells - 2)) if longest else 0
            line.append("━" * filled, bar).append(" " * (bar_cells - filled))
        for measure in others:
            line.append(f"{_format(getattr(row, measure.field)):<{FIGURE_CELLS}}")
        line.append(sanitize(row.readout_text or "") if has_words else "").rstrip()
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return lines


def _format(value: float | None) -> str:
    return "…" if value is None else format_number(value)


def _nines(value: float | None) -> float:
    """Return how close a figure is to 1: 1 for .9, 2 for .99."""
    return 0.0 if value is None or value <= 0 else -math.log10(max(1 - value, MIN_DISTANCE))
