"""The results of a sweep as rows and as a plot, for the command line and the interface."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker.summary import RunSummary
from softprompt_tui.rendering.measures import is_for_language_model, measure_names
from softprompt_tui.rendering.plots import TERMINAL_PALETTE, Palette, new_figure, set_log_ticks

AXIS_CELLS = 8  # of the y axis and its labels
TICK_LABEL_CELLS = 3  # width of a tick label on the x axis


class Measure(NamedTuple):
    """A figure of each token count."""

    label: str
    field: str  # of SweepResult
    from_width: int = 0  # cells of the sweep screen's table; a narrower one leaves it out
    is_share: bool = True  # from 0 to 1, and more is better


_TEXT_ENCODER = (
    Measure("similar", "similarity"),
    Measure("composed", "composed"),
    Measure("worst", "worst", 44),
    Measure("as text", "readout_similarity", 35),
)
_LANGUAGE_MODEL = (
    Measure("agree", "similarity"),
    Measure("KL", "kl", is_share=False),
    Measure("of floor", "kl_share", 35, is_share=False),
)


def sweep_measures(objective: str) -> tuple[Measure, ...]:
    """Return the figures of a sweep with this objective, the most important first."""
    return _LANGUAGE_MODEL if is_for_language_model(objective) else _TEXT_ENCODER


def sweep_rows(run: RunSummary) -> list[SweepResult]:
    """Return one row per token count: the results or, while the sweep is running, the latest reports."""
    if run.results:
        return list(run.results)
    reported = {k: (similarity, composed) for k, similarity, composed in run.sweep_rows}
    return [SweepResult(k, *reported.get(k, (None, None))) for k in run.sweep]


def plot_sweep(
    rows: Sequence[SweepResult], width: int, height: int, palette: Palette = TERMINAL_PALETTE, objective: str = ""
) -> str:
    """Plot the distances from the hard prompt against the token count on a log axis, and mark the knee.

    These are 1 - similarity and 1 - composed, or KL and 1 - agreement of a language model. The distance from 1
    separates .999 from .9999; similarity itself would not. Returns "" if there is nothing to draw.
    """
    import plotext

    divergence, agreement = measure_names(objective)
    curves: dict[str, list[tuple[int, float]]] = {}
    for label, name, is_share in (
        ((divergence, "kl", False), (f"1 - {agreement}", "similarity", True))
        if is_for_language_model(objective)
        else (("1 - similarity", "similarity", True), ("1 - composed", "composed", True))
    ):
        known = [(row.tokens, getattr(row, name)) for row in rows]
        distances = [(k, 1 - value if is_share else value) for k, value in known if value is not None]
        curves[label] = [(k, distance) for k, distance in distances if distance > 0]
    values = [value for curve in curves.values() for _, value in curve]
    if max(map(len, curves.values())) < 2 or height < 6 or width < 20:
        return ""
    new_figure(width, height)
    logs = [math.log10(value) for value in values]
    line = max(max(logs) - min(logs), 0.1) / (height - 3)  # one terminal line, in axis units
    cells_per_token = max(1, width - AXIS_CELLS) / max(1, rows[-1].tokens - rows[0].tokens)
    plotext.ylim(min(logs) - 1.5 * line, max(logs) + 1.5 * line)
    knee = next((row.tokens for row in rows if row.knee), None)
    if knee is not None:
        plotext.vertical_line(knee, color=palette.behind)
        alignment = "left" if knee <= (rows[0].tokens + rows[-1].tokens) / 2 else "right"
        plotext.text(f" knee {knee} ", knee, max(logs) + line, alignment=alignment, color="default")
    upper = max(curves, key=lambda name: curves[name][-1][1] if curves[name] else 0.0)
    for color, (name, curve) in zip(palette.curves, curves.items(), strict=False):
        if curve:
            heights = [math.log10(value) for _, value in curve]
            plotext.plot([k for k, _ in curve], heights, marker="braille", color=color)
            # the upper curve's label goes above the part of the curve that it spans, the lower's below
            first = curve[-1][0] - len(name) / cells_per_token - 1
            spanned = [y for (k, _), y in zip(curve, heights, strict=True) if k >= first]
            y = max(spanned) + line if name == upper else min(spanned) - line
            plotext.text(name, curve[-1][0], y, alignment="right", color=color)
    set_log_ticks(values)
    stride = math.ceil(len(rows) * TICK_LABEL_CELLS / max(1, width - AXIS_CELLS))
    plotext.xticks([row.tokens for row in rows][::stride])
    return str(plotext.build())
