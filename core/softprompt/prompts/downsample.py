"""Downsample curves for display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

Point = TypeVar("Point", bound="tuple[Any, ...]")  # step, loss and other values


def downsample(points: Sequence[Point], max_points: int) -> list[Point]:
    """Return at most `max_points` points: both ends, and the lowest loss of each interval, to keep every dip."""
    if len(points) <= max_points:
        return list(points)
    if max_points < 3:
        return [*points[:1], *points[-1:]][-max_points:]
    first, *inner, last = points
    size = -(-len(inner) // (max_points - 2))
    return [first, *(min(inner[i : i + size], key=lambda point: point[1]) for i in range(0, len(inner), size)), last]
