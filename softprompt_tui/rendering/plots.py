"""Loss curves in characters."""

from __future__ import annotations

import math
from collections.abc import Sequence

from softprompt.prompts.downsample import downsample

HEIGHT, WIDEST = 14, 100
COLORS = ("cyan", "magenta", "yellow", "green", "red")
Point = tuple[int, float]  # step, loss


def render(
    curves: Sequence[Sequence[Point]],
    width: int,
    height: int,
    labels: Sequence[str] = (),
    title: str = "loss",
    behind: Sequence[Sequence[Point]] = (),
) -> str:
    """The curves on a log axis, with colours, and those `behind` them in grey; "" where there are not two points to draw.

    Only losses that can stand on a log axis are shown.
    """
    import plotext

    shown = [
        downsample([point for point in curve if point[1] > 0 and math.isfinite(point[1])], 2 * width)
        for curve in (*behind, *curves)
    ]
    points = [point for curve in shown for point in curve]
    if len(points) < 2 or height < 4:
        return ""
    begin_figure(width, height)
    plotext.title(title)
    for i, curve in enumerate(shown, start=-len(behind)):
        # logarithms are drawn rather than plotext's own log scale, whose ticks are full numbers such as 0.0003162
        steps, logs = [step for step, _ in curve], [math.log10(loss) for _, loss in curve]
        plotext.plot(
            steps,
            logs,
            marker="braille",
            color=COLORS[i % len(COLORS)] if i >= 0 else "gray",
            label=labels[i] if labels and i >= 0 else None,
        )
    mark_logs([loss for _, loss in points])
    last = max(step for step, _ in points)
    plotext.xticks([round(last * i / 4) for i in range(5)])
    return str(plotext.build())


def begin_figure(width: int, height: int) -> None:
    import plotext

    plotext.clear_figure()
    plotext.limit_size(False, False)  # the size is asked for, whatever plotext takes for the terminal's
    plotext.theme("clear")
    plotext.plot_size(width, height)


def mark_logs(values: Sequence[float]) -> None:
    """Ticks for values of which the logarithms are drawn."""
    import plotext

    marks = _marks(min(values), max(values))
    plotext.yticks([math.log10(mark) for mark in marks], [f"{mark:g}" for mark in marks])


def _marks(least: float, most: float) -> list[float]:
    """Round values between the two: powers of ten, and where these are few their doubles and halves."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    for digits in ((1,), (1, 2, 5)):
        marks = [digit * 10.0**power for power in powers for digit in digits]
        if sum(least <= mark <= most for mark in marks) > 2:
            break
    return marks


def without_colour(text: str) -> str:
    import plotext

    return str(plotext.uncolorize(text))
