"""A training's curve as the interface keeps it: bounded, however long the training runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from softprompt.prompts.downsample import downsample

MAX_POINTS = 4000  # points kept; then every stretch of them is reduced to its least loss

Point = tuple[Any, ...]  # step, loss, similarity, and the losses of all restarts where there are several


class Series:
    """Points in order of their steps."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.points: list[Point] = [tuple(point) for point in points]

    @property
    def restarts(self) -> list[list[tuple[int, float]]]:
        """The curve of every restart, as steps with losses; none where there is only one."""
        most = max((len(point) for point in self.points), default=3) - 3
        return [
            [(point[0], point[3 + i]) for point in self.points if len(point) > 3 + i and point[3 + i] is not None]
            for i in range(most)
        ]

    def add(
        self, step: int, loss: float | None, similarity: float | None, restarts: Sequence[float | None] = ()
    ) -> None:
        """Adds a point; one at an earlier step than the last begins the curve anew from there (a training that went on from its checkpoint)."""
        if loss is None or similarity is None:
            return
        if self.points and step <= self.points[-1][0]:
            self.points = [point for point in self.points if point[0] < step]
        self.points.append((step, loss, similarity, *restarts))
        if len(self.points) > MAX_POINTS:
            self.points = downsample(self.points, MAX_POINTS // 2)
