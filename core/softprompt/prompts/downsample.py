"""Downsample curves for display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

Point = TypeVar("Point", bound="tuple[Any, ...]")  # step, loss and other values


def downsample(points: Sequence[Point], max_points: int) -> list[Point]:
    """Return at most `max_points` points: the lowest loss of each interval, to keep every dip, and the last point."""
    size = max(1, -(-len(points) // max(1, max_points - 1)))
    lowest = [min(points[i : i + size], key=lambda point: point[1]) for i in range(0, len(points), size)]
    return lowest if not points or lowest[-1] == points[-1] else [*lowest, points[-1]]
