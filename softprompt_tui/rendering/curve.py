"""Draw the loss curve of a pane: on a log axis, with the restarts behind it and the best step marked.

plotext, which draws the full-screen plots, takes 20 ms for a frame of 70 by 20 cells. Here a frame takes 2 ms, so that
keys are answered while a run trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from softprompt_tui.rendering.axes import BEST_MARK, END_CELLS, X_TICK_CELLS, label_ends, round_steps

BLOCKS = " ▁▂▃▄▅▆▇█"
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bits of a braille cell, by column and row
_STEPS = (1, 2, 5)  # the axis ends at one of these multiples of a power of ten
MIN_PLOT_WIDTH, MIN_PLOT_HEIGHT = 24, 4  # cells; a smaller area shows bars
X_AXIS_FROM_HEIGHT = 9

Point = tuple[int, float]  # step, loss


class Cell(NamedTuple):
    """A character and its tone: "curve", "behind", "axis", "best", or ""."""

    char: str
    tone: str = ""


BLANK = Cell(" ")


class Curve(NamedTuple):
    """What a pane draws.

    Attributes:
        points: step and loss, about as many as there is room for. Losses are positive and finite.
        behind: the curves of restarts, or of token counts.
        names: what the curves behind are called at their ends. Empty if they are alike.
        last_step: where the step axis ends.
        best: the point to mark, or None.
    """

    points: Sequence[Point] = ()
    behind: Sequence[Sequence[Point]] = ()
    names: Sequence[str] = ()
    last_step: int = 0
    best: Point | None = None

    @property
    def is_flat(self) -> bool:
        losses = [loss for _, loss in self.points]
        return not losses or max(losses) <= min(losses)


def draw(curve: Curve, width: int, height: int) -> list[list[Cell]]:
    """Return `height` lines of `width` cells, or no lines if the curve is flat."""
    if curve.is_flat or width < 1 or height < 1:
        return []
    if width < MIN_PLOT_WIDTH or height < MIN_PLOT_HEIGHT:
        return _draw_bars(curve, width, height)
    return _draw_plot(curve, width, height)


def is_plottable(step: int, loss: float | None) -> bool:
    return loss is not None and loss > 0 and math.isfinite(loss) and step >= 0


# plots


def _draw_plot(curve: Curve, width: int, height: int) -> list[list[Cell]]:
    losses = [loss for points in (curve.points, *curve.behind) for _, loss in points]
    high, low = math.log10(max(losses)), math.log10(_round_down(min(losses)))
    has_x_axis = height >= X_AXIS_FROM_HEIGHT
    rows = height - 2 * has_x_axis
    ticks = _ticks(low, high, rows)
    label_width = max(map(len, ticks.values()))
    end_width = END_CELLS if curve.names and width >= MIN_PLOT_WIDTH + END_CELLS else 0
    canvas = _Canvas(width - label_width - 1 - end_width, rows, curve.last_step, low, high)
    for points in curve.behind:
        canvas.draw(points, "behind")
    canvas.draw(curve.points, "curve")
    if curve.best is not None:
        canvas.mark(curve.best)
    named = [(name, points[-1]) for name, points in zip(curve.names, curve.behind, strict=False) if points]
    names = label_ends((name, canvas.row(end)) for name, end in named) if end_width else {}
    name_column = max((canvas.column(step) for _, (step, _) in named), default=0) + 2
    lines = []
    for row, cells in enumerate(canvas.cells):
        label = ticks.get(row, "")
        name = _text(names.get(row, ""), "axis")
        plot = [*cells, *[BLANK] * end_width]
        plot[name_column : name_column + len(name)] = name
        lines.append([*_text(f"{label:>{label_width}}{'┤' if label else '│'}", "axis"), *plot])
    return [*lines, *_x_axis(canvas, label_width, end_width)] if has_x_axis else lines


class _Canvas:
    """Cells of braille dots, two columns and four rows in each."""

    def __init__(self, width: int, height: int, last_step: int, low: float, high: float) -> None:
        self.width, self.height, self.last_step = width, height, max(1, last_step)
        self._low, self._span = low, max(high - low, 1e-9)
        self._bits = [[0] * width for _ in range(height)]
        self._tones = [[""] * width for _ in range(height)]
        self._marked: dict[tuple[int, int], Cell] = {}

    def _dot(self, point: Point) -> tuple[int, int]:
        """Return the column and row of a point, in dots."""
        step, loss = point
        share = (math.log10(loss) - self._low) / self._span
        x = self._dot_column(step)
        y = round((1 - min(1.0, max(0.0, share))) * (self.height * 4 - 1))
        return x, y

    def _dot_column(self, step: int) -> int:
        return round(min(step, self.last_step) / self.last_step * (self.width * 2 - 1))

    def column(self, step: int) -> int:
        return self._dot_column(step) // 2

    def row(self, point: Point) -> int:
        return self._dot(point)[1] // 4

    def draw(self, points: Sequence[Point], tone: str) -> None:
        """Draw a line through the points. A later line hides an earlier one in the cells that both touch."""
        dots = [self._dot(point) for point in points]
        for (x0, y0), (x1, y1) in pairwise(dots):
            length = max(abs(x1 - x0), abs(y1 - y0), 1)
            for i in range(length + 1):
                self._set(x0 + round((x1 - x0) * i / length), y0 + round((y1 - y0) * i / length), tone)

    def _set(self, x: int, y: int, tone: str) -> None:
        column, row = x // 2, y // 4
        if self._tones[row][column] != tone:
            self._bits[row][column], self._tones[row][column] = 0, tone
        self._bits[row][column] |= _DOTS[x % 2][y % 4]

    def mark(self, point: Point) -> None:
        x, y = self._dot(point)
        self._marked[y // 4, x // 2] = Cell(BEST_MARK, "best")

    @property
    def cells(self) -> list[list[Cell]]:
        return [
            [
                self._marked.get((row, column)) or (Cell(chr(0x2800 + bits), tone) if bits else BLANK)
                for column, (bits, tone) in enumerate(zip(self._bits[row], self._tones[row], strict=True))
            ]
            for row in range(self.height)
        ]


def end_labels(*ends: float) -> tuple[str, ...]:
    """Return the ends of an axis in one digit, or in two if they would look alike."""
    labels = tuple(f"{end:.1g}" for end in ends)
    return labels if len(set(labels)) == len(labels) else tuple(f"{end:.2g}" for end in ends)


def _ticks(low: float, high: float, rows: int) -> dict[int, str]:
    """Return the labels of the loss axis by row: both ends, and the powers of ten between them."""
    top, bottom = end_labels(10**high, 10**low)
    ticks = {0: top, rows - 1: bottom}
    for power in range(math.ceil(low + 1e-9), math.ceil(high)):
        row = round((high - power) / max(high - low, 1e-9) * (rows - 1))
        if all(abs(row - other) > 1 for other in ticks):
            ticks[row] = f"{10.0**power:.1g}"
    return ticks


def _x_axis(canvas: _Canvas, label_width: int, end_width: int) -> list[list[Cell]]:
    """Return the step axis and its labels, cut to the width of the canvas."""
    axis, labels = list("─" * canvas.width), [" "] * canvas.width
    for step in round_steps(0, canvas.last_step, canvas.width // X_TICK_CELLS):
        column = canvas.column(step)
        text = f"{step}"
        start = min(max(0, column - len(text) // 2), canvas.width - len(text))
        axis[column] = "┬"
        if start >= 0 and not "".join(labels[max(0, start - 1) : start + len(text)]).strip():
            labels[start : start + len(text)] = text
    before, after = " " * label_width, " " * end_width
    return [
        _text(f"{before}└{''.join(axis)}{after}", "axis"),
        _text(f"{before} {''.join(labels)}{after}", "axis"),
    ]


def _round_down(value: float) -> float:
    """Return the next lower number that is 1, 2 or 5 times a power of ten, so that the axis seldom changes."""
    power = 10.0 ** math.floor(math.log10(value))
    return max((step * power for step in _STEPS if step * power <= value), default=value)


def axis_end(step: int, steps: int) -> int:
    """Return where the step axis of a running training ends: it grows with the run, so that the fall stays wide.

    It is at least 1.5 times the current step, and 1, 2 or 5 times a power of ten, so that it seldom changes.
    """
    power: int = 10 ** int(math.log10(max(1, step)))
    ends = [multiple * power for multiple in (2, 5, 10, 20)]
    return min(steps, next(end for end in ends if end >= 1.5 * step))


def _text(text: str, tone: str = "") -> list[Cell]:
    return [Cell(char, tone) for char in text]


# bars


def _draw_bars(curve: Curve, width: int, height: int) -> list[list[Cell]]:
    """Return bars of the logarithms between the first loss and the last one, where there is room for these."""
    logs = [math.log10(loss) for _, loss in curve.points]
    first, last = end_labels(curve.points[0][1], curve.points[-1][1])
    first, last = f"{first} ", f" {last}"
    has_labels = width >= len(first) + len(last) + 12
    bar_width = width - (len(first) + len(last)) * has_labels
    lines = []
    for row, bars in enumerate(block_rows([log - min(logs) for log in logs], bar_width, height)):
        before = first if has_labels and row == 0 else " " * len(first) * has_labels
        after = last if has_labels and row == height - 1 else " " * len(last) * has_labels
        lines.append([*_text(before, "axis"), *_text(bars, "curve"), *_text(after, "axis")])
    return lines


def block_rows(data: Sequence[float], width: int, height: int) -> list[str]:
    """Return `height` lines of block characters, or no lines if there are fewer than two values."""
    if len(data) < 2 or width < 1 or height < 1:
        return []
    highest = max(data) or 1.0
    values = [data[column * len(data) // width] for column in range(width)]
    eighths = [1 + round(value / highest * (height * 8 - 1)) for value in values]
    return ["".join(BLOCKS[max(0, min(8, level - 8 * row))] for level in eighths) for row in reversed(range(height))]
