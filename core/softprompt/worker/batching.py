"""Which waiting runs are trained in one batch: those side by side that have in common what a batch must."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

MAX_BATCH = 16  # rows of a batch that forms by itself


def next_batch_size(waiting: Sequence[tuple[Hashable | None, int]]) -> int:
    """How many of those that wait begin with the first of them; each has what it can share a batch by, None for nothing, and its rows."""
    if not waiting or waiting[0][0] is None:
        return min(1, len(waiting))
    rows = 0
    for i, (batch, own) in enumerate(waiting):
        rows += own
        if i and (batch != waiting[0][0] or rows > MAX_BATCH):
            return i
    return len(waiting)
