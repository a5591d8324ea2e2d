"""The results of a sweep as rows and as a plot, shared by the command line and the interface."""

from __future__ import annotations

import math
from collections.abc import Sequence

from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker.summary import RunSummary
from softprompt_tui.rendering.plots import TERMINAL_PALETTE, Palette, new_figure, set_log_ticks

TICK_LABEL_CELLS = 3  # width of a tick label on the x axis


def sweep_rows(run: RunSummary) -> list[SweepResult]:
    """Return one row per token count: the results or, while the sweep is running, the latest reports."""
    if run.results:
        return list(run.results)
    reported = {k: (similarity, composed) for k, similarity, composed in run.sweep_rows}
    return [SweepResult(k, *reported.get(k, (None, None))) for k in run.sweep]


def plot_sweep(rows: Sequence[SweepResult], width: int, height: int, palette: Palette = TERMINAL_PALETTE) -> str:
    """Plot 1 - similarity and 1 - composed against the token count on a log axis, and mark the knee.

    The distance from 1 separates .999 from .9999; similarity itself would not. Returns "" if there is nothing to draw.
    """
    import plotext

    curves = {}
    for name in ("similarity", "composed"):
        known = [(row.tokens, getattr(row, name)) for row in rows]
        curves[name] = [(k, 1 - value) for k, value in known if value is not None and value < 1]
    values = [value for curve in curves.values() for _, value in curve]
    if max(map(len, curves.values())) < 2 or height < 6 or width < 20:
        return ""
    new_figure(width, height)
    logs = [math.log10(value) for value in values]
    line = max(max(logs) - min(logs), 0.1) / (height - 3)  # one terminal line, in axis units
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
            offset = line if name == upper else -line  # the upper curve's label goes above it, the lower's below
            plotext.text(f"1 - {name}", curve[-1][0], heights[-1] + offset, alignment="right", color=color)
    set_log_ticks(values)
    stride = math.ceil(len(rows) * TICK_LABEL_CELLS / max(1, width - 8))
    plotext.xticks([row.tokens for row in rows][::stride])
    return str(plotext.build())
