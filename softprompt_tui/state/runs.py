"""The interface's copy of the worker's runs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from softprompt.worker.summary import RunReport, RunSummary

ACTIVE_STATES = ("running", "queued")
_STATE_ORDER = {"running": 0, "queued": 1, "paused": 2, "unreadable": 3}


class RunStore:
    """All runs by id. Code that changes a run here also posts the message about it."""

    def __init__(self) -> None:
        self.by_id: dict[str, RunSummary] = {}
        self.pending_submits = 0  # jobs that the worker has not accepted yet
        self.started_here: set[str] = set()  # other runs come from another interface or a command
        self._unconfirmed: set[str] = set()  # runs from an earlier connection that the new list has not confirmed yet

    # updates from the worker

    def begin_list(self) -> None:
        """Begin a new list of all runs. Its pages arrive one by one."""
        self._unconfirmed = set(self.by_id)

    def add_page(self, runs: Iterable[RunSummary], more: bool) -> None:
        """Add a page of the list. After the last page, remove runs that were dropped while the connection was down."""
        for run in runs:
            self.update(run)
        if not more:
            for gone in self._unconfirmed:
                del self.by_id[gone]
            self._unconfirmed.clear()

    def update(self, run: RunSummary) -> RunSummary:
        """Store the new state of a run and keep the values that only its reports contain."""
        self._unconfirmed.discard(run.id)
        before = self.by_id.get(run.id)
        updated = self.by_id[run.id] = run if before is None else run.with_report_values_of(before)
        return updated

    def apply_report(self, report: RunReport) -> bool:
        """Apply a progress report. Return whether its run is known."""
        run = self.by_id.get(report.run)
        if run is not None:
            self.by_id[run.id] = run.with_report(report)
        return run is not None

    def set_stage(self, run_id: str, stage: str) -> RunSummary | None:
        """Set the current stage of loading a run's model. Return the run if it is known and the stage is new."""
        run = self.by_id.get(run_id)
        if run is None or run.stage == stage:
            return None
        updated = self.by_id[run_id] = replace(run, stage=stage)
        return updated

    def clear_stages(self) -> None:
        """Forget the stages of loading, because the worker has ended."""
        for run in self.by_id:
            self.set_stage(run, "")

    def drop(self, run: str) -> None:
        self.by_id.pop(run, None)
        self._unconfirmed.discard(run)

    # queries

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.by_id.values())

    def is_training(self, run: str) -> bool:
        return run in self.by_id and self.by_id[run].state == "running"

    def running_run(self, preferred: str) -> RunSummary | None:
        """Return the running run, `preferred` if that is one, or None."""
        running = [run for run in self.by_id.values() if run.state == "running"]
        return next((run for run in running if run.id == preferred), running[0] if running else None)

    def active_ids(self) -> list[str]:
        """Return the ids of the running and queued runs."""
        return [run.id for run in self.by_id.values() if run.state in ACTIVE_STATES]

    def sorted_runs(self) -> list[RunSummary]:
        """Return running runs first, then waiting runs, then ended runs from the latest to the earliest."""
        runs = self.by_id.values()
        unfinished = sorted(
            (run for run in runs if run.state in _STATE_ORDER), key=lambda run: (_STATE_ORDER[run.state], run.position)
        )
        ended = sorted((run for run in runs if run.state not in _STATE_ORDER), key=lambda run: run.ended, reverse=True)
        return [*unfinished, *ended]

    def latest_search(self, entry: str) -> RunSummary | None:
        """Return the latest search for the hard readout of an entry."""
        runs = [run for run in self.by_id.values() if run.of_entry == entry]
        return max(runs, key=lambda run: (run.created, run.position), default=None)
