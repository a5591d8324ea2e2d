"""A training's curve as the interface keeps it: bounded, however long the training runs."""

from __future__ import annotations

from collections.abc import Iterable

from softprompt.curves import reduced

MOST = 4000  # points kept; then every stretch of them is reduced to its least loss

Point = tuple[int, float, float]  # step, loss, similarity


class Series:
    """Points in order of their steps."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.points: list[Point] = [(int(step), float(loss), float(similarity)) for step, loss, similarity in points]

    def add(self, step: int, loss: float | None, similarity: float | None) -> None:
        """Adds a point; one at an earlier step than the last begins the curve anew from there (a training that went on from its checkpoint)."""
        if loss is None or similarity is None:
            return
        if self.points and step <= self.points[-1][0]:
            self.points = [point for point in self.points if point[0] < step]
        self.points.append((step, loss, similarity))
        if len(self.points) > MOST:
            self.points = reduced(self.points, MOST // 2)
