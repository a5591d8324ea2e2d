"""The loss curve in characters."""

from __future__ import annotations

import math
import shutil
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from softprompt.prompt import Array

HEIGHT, WIDEST = 14, 100


def print_curve(losses: Array) -> None:
    """Loss against steps, on a log axis; reduced to the width of the terminal before it is drawn."""
    import plotext

    width = min(WIDEST, shutil.get_terminal_size().columns)
    steps, values = reduced(losses, 2 * width)
    if len(values) < 2:
        return
    plotext.clear_figure()
    plotext.theme("clear")
    plotext.plot_size(width, HEIGHT)
    plotext.title("loss")
    # logarithms are drawn rather than plotext's own log scale, whose ticks are full numbers such as 0.0003162
    plotext.plot(steps, [math.log10(value) for value in values], marker="braille", color="cyan")
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    marks = [10.0**power for power in range(low, high + 1)]
    plotext.yticks([math.log10(mark) for mark in marks], [f"{mark:g}" for mark in marks])
    last = steps[-1]
    plotext.xticks([round(last * i / 4) for i in range(5)])
    drawn = plotext.build()
    click.echo(drawn if sys.stdout.isatty() else plotext.uncolorize(drawn))


def reduced(losses: Array, most: int) -> tuple[list[int], list[float]]:
    """(steps, losses) of at most `most` points: the least loss of each stretch, so that no dip is lost."""
    positive = [(i + 1, float(loss)) for i, loss in enumerate(losses) if loss > 0 and math.isfinite(loss)]
    size = max(1, math.ceil(len(positive) / most))
    points = [min(positive[i : i + size], key=lambda point: point[1]) for i in range(0, len(positive), size)]
    return [step for step, _ in points], [loss for _, loss in points]
