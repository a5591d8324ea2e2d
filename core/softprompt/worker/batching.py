"""Choose the waiting runs to train in one batch: consecutive runs in the queue with the same batch key."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

MAX_BATCH = 16  # rows


def next_batch_size(waiting: Sequence[tuple[Hashable | None, int]]) -> int:
    """Return how many runs from the front of the queue to start together.

    Args:
        waiting: for each run, in queue order, its batch key (None if it must train alone) and its number of rows.
    """
    if not waiting or waiting[0][0] is None:
        return min(1, len(waiting))
    rows = 0
    for i, (batch_key, run_rows) in enumerate(waiting):
        rows += run_rows
        if i and (batch_key != waiting[0][0] or rows > MAX_BATCH):
            return i
    return len(waiting)
