"""Labels of plots: round steps on an axis, and the names of curves where these end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

BEST_MARK = "◆"
X_TICK_CELLS = 12  # of a plot, at least, for each step that is labelled
END_CELLS = 7  # the room at the right edge of a plot for the names of its curves
_MULTIPLES = (1, 2, 5)


def round_steps(first: int, last: int, most: int) -> list[int]:
    """Return at most `most` steps from `first` to `last`: all multiples of 1, 2 or 5 times a power of ten."""
    distance = next(
        multiple * 10**power
        for power in range(20)
        for multiple in _MULTIPLES
        if last // (multiple * 10**power) - -(-first // (multiple * 10**power)) < max(2, most)
    )
    return list(range(-(-first // distance) * distance, last + 1, distance))


def label_ends(ends: Iterable[tuple[str, int]]) -> dict[int, str]:
    """Name the curves in the rows in which they end.

    Args:
        ends: the name and the last row of each curve, in an order in which neighbours may be named together.

    Returns:
        A label by row, at most END_CELLS - 1 wide. Curves that end in one row share it: `9-16`, or `2,7`.
    """
    order = list(ends)
    labels = {}
    for row in {row for _, row in order}:
        parts: list[list[str]] = []
        follows = False
        for name, own_row in order:
            if own_row == row:
                if follows:
                    parts[-1].append(name)
                else:
                    parts.append([name])
            follows = own_row == row
        label = ",".join(part[0] if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
        labels[row] = label if len(label) < END_CELLS else f"{label[: END_CELLS - 2]}…"  # of token counts
    return labels


def thin_out(curves: Sequence[object], most: int) -> range:
    """Return the indices of at most `most` curves, equally spaced."""
    return range(0, len(curves), max(1, -(-len(curves) // most)))
