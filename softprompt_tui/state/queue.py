"""Describe what a queued run is waiting for: running runs, and queued runs ahead of it."""

from __future__ import annotations

from collections.abc import Sequence

from softprompt.worker.batching import MAX_BATCH, next_batch_size
from softprompt.worker.summary import RunSummary

MAX_NAME_LENGTH = 28  # limit for a name or prompt in a sentence, in characters


def queue_places(runs: Sequence[RunSummary]) -> dict[str, int]:
    """Return each queued run's place in the queue, starting at 1. `runs` are in the worker's order."""
    return {run.id: place for place, run in enumerate((run for run in runs if run.state == "queued"), 1)}


def runs_ahead(run: RunSummary, runs: Sequence[RunSummary]) -> list[RunSummary]:
    """Return the runs that finish before a queued run starts: running runs, and queued runs in earlier batches."""
    queued = [other for other in runs if other.state == "queued"]
    index = next((i for i, other in enumerate(queued) if other.id == run.id), 0)
    start = 0
    # Older workers do not report which runs share a batch. Every run has a row, so a batch has at most MAX_BATCH runs.
    batches = [(other.batch or None, other.rows) for other in queued]
    while queued and (end := start + next_batch_size(batches[start : start + MAX_BATCH + 1])) <= index:
        start = end
    return [other for other in runs if other.state == "running"] + queued[:start]


def format_state(run: RunSummary, place: int | None) -> str:
    """Return the state of a run for a table, with its place if it is queued."""
    if run.state == "running":
        return "stopping" if run.stopping else "pausing" if run.pausing else "loading" if run.stage else "running"
    return f"{run.state} {place}" if place else run.state


def describe_wait(run: RunSummary, runs: Sequence[RunSummary]) -> str:
    """Return a phrase that says what a queued run is waiting for."""
    ahead = runs_ahead(run, runs)
    if not ahead:
        return "waiting for its turn"
    return f"waiting behind {describe_run(ahead[0])}" + (f" and {len(ahead) - 1} more" if len(ahead) > 1 else "")


def describe_run(run: RunSummary) -> str:
    """Return the kind of a run and its name, or the beginning of its prompt."""
    name = run.name or run.prompt
    kind = {"hard": "the hard readout of ", "sweep": "the sweep of "}.get(run.kind, "")
    return kind + (name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 1]}…")
