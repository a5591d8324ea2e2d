"""What a sweep comes to, as figures and as a plot: the same on the command line and in the interface."""

from __future__ import annotations

import math
from collections.abc import Sequence

from softprompt.prompts.sweep_result import SweepResult
from softprompt.worker.summary import RunSummary
from softprompt_tui.rendering.plots import COLORS, begin_figure, mark_logs

CELLS = 3  # that a label of the axis takes


def rows_of(run: RunSummary) -> list[SweepResult]:
    """What a sweep has come to, a row for each number of tokens: its results, or as far as its reports tell."""
    if run.results:
        return list(run.results)
    told = {k: (similarity, composed) for k, similarity, composed in run.swept}
    return [SweepResult(k, *told.get(k, (None, None))) for k in run.sweep]


def plot(rows: Sequence[SweepResult], width: int, height: int) -> str:
    """1 - similarity and 1 - composed against the number of tokens, on a log axis, the knee marked; "" where there is nothing to draw.

    The distance from 1 tells .999 from .9999, which similarity itself would not.
    """
    import plotext

    curves = {}
    for name in ("similarity", "composed"):
        known = [(row.tokens, getattr(row, name)) for row in rows]
        curves[name] = [(k, 1 - value) for k, value in known if value is not None and value < 1]
    values = [value for curve in curves.values() for _, value in curve]
    if max(map(len, curves.values())) < 2 or height < 6 or width < 20:
        return ""
    begin_figure(width, height)
    logs = [math.log10(value) for value in values]
    line = max(max(logs) - min(logs), 0.1) / (height - 3)  # what a line of the terminal is on the axis
    plotext.ylim(min(logs) - 1.5 * line, max(logs) + 1.5 * line)
    knee = next((row.tokens for row in rows if row.knee), None)
    if knee is not None:
        plotext.vertical_line(knee, color="gray")
        way = "left" if knee <= (rows[0].tokens + rows[-1].tokens) / 2 else "right"
        plotext.text(f" knee {knee} ", knee, max(logs) + line, alignment=way, color="default")
    upper = max(curves, key=lambda name: curves[name][-1][1] if curves[name] else 0.0)
    for color, (name, curve) in zip(COLORS, curves.items(), strict=False):
        if curve:
            at = [math.log10(value) for _, value in curve]
            plotext.plot([k for k, _ in curve], at, marker="braille", color=color)
            beside = line if name == upper else -line  # of two curves the one is labelled above, the other below
            plotext.text(f"1 - {name}", curve[-1][0], at[-1] + beside, alignment="right", color=color)
    mark_logs(values)
    every = math.ceil(len(rows) * CELLS / max(1, width - 8))
    plotext.xticks([row.tokens for row in rows][::every])
    return str(plotext.build())
