"""The curve of a training run, with a limited number of points however long the run takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from softprompt.prompts.downsample import downsample

MAX_POINTS = 4000  # a longer curve is downsampled to half of this; each stretch keeps its lowest loss

Point = tuple[Any, ...]  # step, loss, similarity, then the loss of every restart if there are several


class Series:
    """The points of a curve, ordered by step."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.points: list[Point] = [tuple(point) for point in points]

    @property
    def restarts(self) -> list[list[tuple[int, float]]]:
        """One curve of (step, loss) per restart; empty if there is only one restart."""
        count = max((len(point) for point in self.points), default=3) - 3
        return [
            [(point[0], point[3 + i]) for point in self.points if len(point) > 3 + i and point[3 + i] is not None]
            for i in range(count)
        ]

    def add(
        self, step: int, loss: float | None, similarity: float | None, restarts: Sequence[float | None] = ()
    ) -> None:
        """Add a point. If training has resumed at an earlier step, replace the curve from that step on."""
        if loss is None or similarity is None:
            return
        if self.points and step <= self.points[-1][0]:
            self.points = [point for point in self.points if point[0] < step]
        self.points.append((step, loss, similarity, *restarts))
        if len(self.points) > MAX_POINTS:
            self.points = downsample(self.points, MAX_POINTS // 2)
