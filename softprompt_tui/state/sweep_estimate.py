"""Estimate how long a sweep takes, from the runs that were trained before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from softprompt.worker.summary import RunSummary

# Measured on `mini` with contexts, two cores: a step of a sweep from 1 to 16 tokens takes 25 times as long as a step of
# one training with 3 tokens, because more tokens make longer texts. A GPU trains all rows at once and takes far less.
ROW_COST = 1.6


class SweepEstimate(NamedTuple):
    """An estimate in seconds. It is an upper bound if it comes from one training: a GPU trains many rows at once."""

    seconds: float
    is_upper_bound: bool


def estimate_sweep(runs: Iterable[RunSummary], model: str, device: str, rows: int, steps: int) -> SweepEstimate | None:
    """Estimate a sweep of this many rows from the latest sweep, or else the latest training, with the same model.

    Return None if none of the runs has trained with this model on this device.
    """
    trained = [
        run for run in runs
        if run.kind in ("train", "sweep") and (run.model.lower(), run.device) == (model.lower(), device)
        and run.step and run.seconds
    ]  # fmt: skip
    if not trained:
        return None
    latest = max(trained, key=lambda run: (run.kind == "sweep", run.began))
    seconds_per_step = (latest.seconds or 0.0) / (latest.step or 1)
    earlier_rows = latest.rows * max(1, len(latest.sweep))
    cost = 1.0 if latest.kind == "sweep" else ROW_COST
    return SweepEstimate(steps * seconds_per_step * rows / earlier_rows * cost, latest.kind == "train")


def describe_counts(counts: Sequence[int]) -> str:
    """Return token counts such as `1 to 16` or `1, 2, 4`."""
    if len(counts) > 2 and list(counts) == list(range(counts[0], counts[-1] + 1)):
        return f"{counts[0]} to {counts[-1]}"
    return ", ".join(map(str, counts))
