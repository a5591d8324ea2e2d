"""The curve of the loss pane, at any size."""

from __future__ import annotations

import math

import pytest

from softprompt_tui.rendering.axes import END_CELLS, label_ends, round_steps
from softprompt_tui.rendering.curve import BEST_MARK, Cell, Curve, draw, end_labels
from softprompt_tui.rendering.plots import TERMINAL_PALETTE, plot_palette, render, strip_color
from softprompt_tui.themes import THEMES

FALLING = [(step, 0.6 * math.exp(-step / 22) + 0.0009) for step in range(1, 235)]
CURVE = Curve(FALLING, last_step=300, best=FALLING[-1])


def text(lines: list[list[Cell]]) -> list[str]:
    return ["".join(cell.char for cell in line) for line in lines]


@pytest.mark.parametrize("width", [1, 10, 24, 36, 70, 120, 250])
@pytest.mark.parametrize("height", [1, 2, 4, 7, 9, 20, 60])
def test_a_curve_fills_its_area_exactly(width: int, height: int) -> None:
    for curve in (CURVE, CURVE._replace(behind=[FALLING, FALLING[:3]]), Curve([(0, 1e-30), (5, 1e30)], last_step=5)):
        lines = draw(curve, width, height)
        assert [len(line) for line in lines] == [width] * height


@pytest.mark.parametrize(("width", "height"), [(36, 7), (70, 20), (50, 2)])
def test_a_curve_visibly_falls_and_both_ends_are_labelled(width: int, height: int) -> None:
    lines = draw(CURVE, width, height)
    assert text(lines)[0].lstrip().startswith("0.6")
    assert "0.0005" in "\n".join(text(lines)) or text(lines)[-1].endswith("0.0009")
    columns = [
        [y for y in range(height) if lines[y][x].tone in ("curve", "best") and lines[y][x].char != " "]
        for x in range(width)
    ]
    tops = [min(column) for column in columns if column]
    assert tops == sorted(tops)  # it never rises
    assert tops[-1] - tops[0] >= height // 2


def test_the_best_step_is_marked_and_restarts_lie_behind() -> None:
    others = [[(step, loss * 5) for step, loss in FALLING]]
    lines = draw(CURVE._replace(behind=others), 70, 20)
    marks = [(x, y) for y, line in enumerate(lines) for x, cell in enumerate(line) if cell.char == BEST_MARK]
    assert len(marks) == 1
    assert 50 < marks[0][0] < 60  # step 234 of 300
    assert {cell.tone for line in lines for cell in line} == {"", "axis", "curve", "behind", "best"}
    assert "300" in text(lines)[-1]


def test_a_frame_changes_only_where_the_curve_grows() -> None:
    before, after = (draw(Curve(FALLING[:end], last_step=300), 70, 20) for end in (200, 204))
    changed = [x for line, new in zip(before, after, strict=True) for x in range(70) if line[x] != new[x]]
    assert 0 < len(changed) <= 12


def test_curves_behind_are_named_at_their_ends() -> None:
    behind = [[(step, 0.6 * math.exp(-step * k / 400) + 0.001) for step in range(1, 235)] for k in range(1, 9)]
    names = [str(k) for k in range(1, 9)]
    curve = CURVE._replace(behind=behind, names=names, last_step=234)
    lines = text(draw(curve, 70, 20))
    ends = [line[-END_CELLS:].strip() for line in lines]
    assert [end for end in ends if end] == names
    for line, end in zip(lines, ends, strict=True):
        assert not end or "⠀" < line[-END_CELLS - 1] <= "⣿"  # right beside its curve
    assert "4-6" in "".join(text(draw(curve, 40, 6)))  # neighbours share a row
    assert [len(line) for line in draw(curve, 30, 6)] == [30] * 6  # too narrow for names


def test_names_in_one_row_are_joined() -> None:
    assert label_ends([("1", 0), ("2", 3), ("4", 3), ("8", 1), ("9", 3)]) == {0: "1", 3: "2-4,9", 1: "8"}
    assert label_ends([("100", 2), ("1", 0), ("200", 2), ("2", 0), ("300", 2)])[2] == "100,2…"


@pytest.mark.parametrize(
    ("first", "last", "most", "steps"),
    [
        (0, 300, 5, [0, 100, 200, 300]),
        (0, 300, 2, [0, 200]),
        (0, 234, 6, [0, 50, 100, 150, 200]),
        (0, 100_000, 7, [0, 20_000, 40_000, 60_000, 80_000, 100_000]),
        (285, 300, 6, [285, 290, 295, 300]),
        (0, 1, 0, [0, 1]),
        (0, 0, 4, [0]),
        (7, 7, 4, [7]),
    ],
)
def test_steps_on_an_axis_are_round(first: int, last: int, most: int, steps: list[int]) -> None:
    assert round_steps(first, last, most) == steps


def test_both_kinds_of_plots_have_round_steps() -> None:
    assert text(draw(CURVE, 70, 20))[-1].split() == ["0", "100", "200", "300"]
    plot = strip_color(render([FALLING], 80, 20)).splitlines()
    assert plot[-1].split() == ["0", "50", "100", "150", "200"]


def test_the_large_plot_names_the_curves_behind_too() -> None:
    behind = [[(step, 0.6 * math.exp(-step * k / 400) + 0.001) for step in range(1, 235)] for k in range(1, 9)]
    plot = strip_color(render([FALLING], 80, 20, behind=behind, behind_labels=[str(k) for k in range(1, 9)]))
    ends = [line.rstrip("│ \n").split()[-1] for line in plot.splitlines()[2:-2] if line.rstrip("│ ")]
    assert {str(k) for k in range(1, 9)} <= set(ends)


def test_a_flat_curve_is_not_drawn() -> None:
    for points in ([], [(1, 0.5)], [(1, 0.5), (2, 0.5)]):
        assert draw(Curve(points, last_step=9), 70, 20) == []


def test_plots_take_the_colors_of_the_theme() -> None:
    for theme in THEMES:
        palette = plot_palette(theme)
        assert palette != TERMINAL_PALETTE
        assert all(isinstance(color, tuple) for color in (*palette.curves, palette.behind))


def test_the_ends_of_an_axis_never_look_alike() -> None:
    assert end_labels(0.5, 0.002) == ("0.5", "0.002")
    assert end_labels(0.14, 0.11) == ("0.14", "0.11")
