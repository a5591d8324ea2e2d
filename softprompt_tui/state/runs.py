"""The runs as the interface knows them."""

from __future__ import annotations

from collections.abc import Iterable

from softprompt.worker.summary import RunReport, RunSummary

GOING = ("running", "queued")
_FIRST = {"running": 0, "queued": 1, "paused": 2, "unreadable": 3}


class RunStore:
    """`known` by their ids. Whoever changes it says so by a message."""

    def __init__(self) -> None:
        self.known: dict[str, RunSummary] = {}
        self.on_their_way = 0  # what was asked for and is not known yet
        self.ours: set[str] = (
            set()
        )  # the runs that were started here: the worker's others are another interface's or a command's
        self._unlisted: set[str] = set()  # known from an earlier connection, and not told of again yet

    # what the worker says

    def begin_list(self) -> None:
        """The worker tells all its runs anew, page by page."""
        self._unlisted = set(self.known)

    def take_page(self, runs: Iterable[RunSummary], more: bool) -> None:
        """What the last page leaves unlisted is gone: it was dropped while there was no connection."""
        for run in runs:
            self.know(run)
        if not more:
            for gone in self._unlisted:
                del self.known[gone]
            self._unlisted.clear()

    def know(self, run: RunSummary) -> RunSummary:
        """Take a run as it is now; what only its reports have told stays with it."""
        self._unlisted.discard(run.id)
        before = self.known.get(run.id)
        known = self.known[run.id] = run if before is None else run.with_reports_of(before)
        return known

    def take_report(self, report: RunReport) -> bool:
        """Whether its run is known."""
        run = self.known.get(report.run)
        if run is not None:
            self.known[run.id] = run.with_report(report)
        return run is not None

    def drop(self, run: str) -> None:
        self.known.pop(run, None)
        self._unlisted.discard(run)

    # what is known

    def count(self, state: str) -> int:
        return sum(run.state == state for run in self.known.values())

    def is_training(self, run: str) -> bool:
        return run in self.known and self.known[run].state == "running"

    def going(self) -> list[str]:
        """The runs that train or wait."""
        return [run.id for run in self.known.values() if run.state in GOING]

    def in_order(self) -> list[RunSummary]:
        """What trains, what waits, what is over, the latest first."""
        runs = self.known.values()
        going = sorted((run for run in runs if run.state in _FIRST), key=lambda run: (_FIRST[run.state], run.position))
        over = sorted((run for run in runs if run.state not in _FIRST), key=lambda run: run.ended, reverse=True)
        return [*going, *over]

    def search_for(self, entry: str) -> RunSummary | None:
        """The last run that looked for the hard readout of an entry."""
        runs = [run for run in self.known.values() if run.of_entry == entry]
        return max(runs, key=lambda run: (run.created, run.position), default=None)
