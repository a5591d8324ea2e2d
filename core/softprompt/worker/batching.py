"""Choose the waiting runs that train in one batch: neighbours in the queue with the same batch key."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

MAX_BATCH = 16  # rows of a batch that the queue forms


def next_batch_size(waiting: Sequence[tuple[Hashable | None, int]]) -> int:
    """Return how many waiting runs start together, counted from the front of the queue.

    Args:
        waiting: the batch key (None if the run trains alone) and the number of rows of each run, in queue order.
    """
    if not waiting or waiting[0][0] is None:
        return min(1, len(waiting))
    rows = 0
    for i, (batch_key, run_rows) in enumerate(waiting):
        rows += run_rows
        if i and (batch_key != waiting[0][0] or rows > MAX_BATCH):
            return i
    return len(waiting)
