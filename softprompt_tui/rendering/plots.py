"""Loss curves as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from softprompt.prompts.downsample import downsample
from softprompt_tui.rendering.axes import BEST_MARK, END_CELLS, X_TICK_CELLS, label_ends, round_steps

if TYPE_CHECKING:
    from textual.theme import Theme

PLOT_HEIGHT, MAX_PLOT_WIDTH = 14, 100
Y_LABEL_CELLS, FRAME_LINES = 8, 4  # left of the plot; above and below it: title, frame and steps
Point = tuple[int, float]  # step, loss
Color = str | tuple[int, int, int]  # a name that plotext knows, or red, green and blue


class Palette(NamedTuple):
    """The colors of a plot: of the curves in their order, of what lies behind them, and of the mark of the best."""

    curves: tuple[Color, ...] = ("cyan", "magenta", "yellow", "green", "red")
    behind: Color = "gray"
    best: Color = "yellow"


TERMINAL_PALETTE = Palette()


def render(
    curves: Sequence[Sequence[Point]],
    width: int,
    height: int,
    labels: Sequence[str] = (),
    title: str = "loss",
    behind: Sequence[Sequence[Point]] = (),
    palette: Palette = TERMINAL_PALETTE,
    behind_labels: Sequence[str] = (),
    best: Point | None = None,
    last_step: int = 0,
) -> str:
    """Plot `curves` in color on a log axis, in front of the `behind` curves, which may have labels at their ends.

    Losses that are not positive and finite are skipped. Returns "" if there are fewer than two points.

    Args:
        best: the point to mark.
        last_step: where the step axis ends at least.
    """
    import plotext

    shown = [
        downsample([point for point in curve if point[1] > 0 and math.isfinite(point[1])], 2 * width)
        for curve in (*behind, *curves)
    ]
    points = [point for curve in shown for point in curve]
    if len(points) < 2 or height < 4:
        return ""
    new_figure(width, height)
    plotext.title(title)
    for i, curve in enumerate(shown, start=-len(behind)):
        # plot the logarithms, because plotext's own log scale has ticks such as 0.0003162
        steps, logs = [step for step, _ in curve], [math.log10(loss) for _, loss in curve]
        plotext.plot(
            steps,
            logs,
            marker="braille",
            color=palette.curves[i % len(palette.curves)] if i >= 0 else palette.behind,
            label=labels[i] if labels and i >= 0 else None,
        )
    if best is not None:
        plotext.scatter([best[0]], [math.log10(best[1])], marker=BEST_MARK, color=palette.best)
    set_log_ticks([loss for _, loss in points])
    steps = [step for step, _ in points]
    first, last = min(steps), max(*steps, last_step)
    start = 0 if first <= 1 else first
    plotext.xticks(round_steps(start, last, width // X_TICK_CELLS))
    if last_step > max(steps):
        plotext.xlim(start, last)
    if behind and behind_labels:
        named = list(zip(behind_labels, shown[: len(behind)], strict=False))
        _label_ends(named, [loss for _, loss in points], (first, last), width, height)
    return str(plotext.build())


def _label_ends(
    curves: Sequence[tuple[str, Sequence[Point]]],
    losses: Sequence[float],
    steps: tuple[int, int],
    width: int,
    height: int,
) -> None:
    """Write the names of curves at their ends, in room that this adds at the right edge of the plot."""
    import plotext

    (first, last), rows = steps, max(2, height - FRAME_LINES)
    last_drawn = max((points[-1][0] for _, points in curves if points), default=last)
    low, high = math.log10(min(losses)), math.log10(max(losses))
    line = (high - low or 1.0) / (rows - 1)  # one terminal line, in axis units
    end = {name: round((high - math.log10(points[-1][1])) / line) for name, points in curves if points}
    cell = (last - first or 1) / max(1, width - Y_LABEL_CELLS - END_CELLS)
    plotext.xlim(0 if first <= 1 else first, last + END_CELLS * cell)
    plotext.ylim(low, high)
    for row, label in label_ends(end.items()).items():
        plotext.text(label, last_drawn + 2 * cell, high - row * line, alignment="left", color="default")


def plot_palette(theme: Theme) -> Palette:
    """Return a theme's colors for plots, so that they match the panes. A theme of terminal colors has plotext's own."""
    from textual.color import Color as ThemeColor  # the command line plots without Textual
    from textual.color import ColorParseError

    names = (theme.primary, theme.secondary, theme.accent, theme.success, theme.error)
    behind = theme.variables.get("border-blurred") or theme.panel
    try:
        colors = [ThemeColor.parse(name) for name in (*names, behind) if name]
    except ColorParseError:
        return TERMINAL_PALETTE
    if len(colors) < len(names) + 1 or any(color.ansi is not None for color in colors):
        return TERMINAL_PALETTE
    *curves, last = (color.rgb for color in colors)
    return Palette(tuple(curves), last, curves[names.index(theme.accent)])


def new_figure(width: int, height: int) -> None:
    import plotext

    plotext.clear_figure()
    plotext.limit_size(False, False)  # otherwise plotext shrinks the plot to its own guess of the terminal size
    plotext.theme("clear")
    plotext.plot_size(width, height)


def set_log_ticks(values: Sequence[float]) -> None:
    """Label the y axis of a plot that shows the logarithms of `values`."""
    import plotext

    ticks = _round_ticks(min(values), max(values))
    plotext.yticks([math.log10(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])


def _round_ticks(low: float, high: float) -> list[float]:
    """Return round values between `low` and `high`: powers of ten, or their multiples by 1, 2 and 5 if needed."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 2, 5)):
        ticks = [tick for power in powers for digit in digits if low <= (tick := digit * 10.0**power) <= high]
        if len(ticks) > 2:
            return ticks
    return sorted({float(f"{end:.2g}") for end in (low, high)}) if len(ticks) < 2 else ticks


def strip_color(text: str) -> str:
    import plotext

    return str(plotext.uncolorize(text))
