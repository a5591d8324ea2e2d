"""Curves reduced to what can be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

Point = TypeVar("Point", bound="tuple[Any, ...]")  # step, loss, and what else is known there


def downsample(points: Sequence[Point], most: int) -> list[Point]:
    """At most `most` points: the least loss of each stretch, so that no dip is lost, and always the last."""
    size = max(1, -(-len(points) // max(1, most - 1)))
    kept = [min(points[i : i + size], key=lambda point: point[1]) for i in range(0, len(points), size)]
    return kept if not points or kept[-1] == points[-1] else [*kept, points[-1]]
