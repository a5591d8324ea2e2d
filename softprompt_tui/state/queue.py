"""What a run that waits is waiting for: what trains, and what stands before it in the queue."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.worker.batching import MAX_BATCH, next_batch_size
from softprompt.worker.summary import RunSummary

MAX_NAME_LENGTH = 28  # characters of a name or prompt in a sentence


def places(runs: Sequence[RunSummary]) -> dict[str, int]:
    """The place in the queue, from 1, of each that waits for its turn; `runs` are in the worker's order."""
    return {run.id: place for place, run in enumerate((run for run in runs if run.state == "queued"), 1)}


def before(run: RunSummary, runs: Sequence[RunSummary]) -> list[RunSummary]:
    """What must be over before a waiting run begins, in that order: all that trains, and what waits ahead of it and not in its batch."""
    queued = [one for one in runs if one.state == "queued"]
    at = next((i for i, one in enumerate(queued) if one.id == run.id), 0)
    begins = 0
    # older workers do not say which runs share a batch; every run has at least one row, so at most MOST share one
    batches = [(one.batch or None, one.rows) for one in queued]
    while queued and (end := begins + next_batch_size(batches[begins : begins + MAX_BATCH + 1])) <= at:
        begins = end
    return [one for one in runs if one.state == "running"] + queued[:begins]


def state_of(run: RunSummary, place: int | None) -> str:
    """Its state in a table: of one that waits its place in the queue too."""
    if run.state == "running":
        return "stopping" if run.stopping else "pausing" if run.pausing else "running"
    return f"{run.state} {place}" if place else run.state


def told(run: RunSummary, runs: Sequence[RunSummary]) -> str:
    """A sentence for one that waits."""
    ahead = before(run, runs)
    if not ahead:
        return "waiting for its turn"
    return f"waiting behind {called(ahead[0])}" + (f" and {len(ahead) - 1} more" if len(ahead) > 1 else "")


def called(run: RunSummary) -> str:
    """What it is and its name, or the beginning of its prompt."""
    name = run.name or run.prompt
    kind = {"hard": "the hard readout of ", "sweep": "the sweep of "}.get(run.kind, "")
    return kind + (name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…")
