"""Generators that yield reports, stop when they are sent True, and return a result."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TypeVar

Report = TypeVar("Report")
Other = TypeVar("Other")
Result = TypeVar("Result")
Reporting = Generator[Report, bool | None, Result]


def drive(work: Reporting[Report, Result], on_report: Callable[[Report], bool | None] | None = None) -> Result:
    """Run `work` to completion and return its result.

    Args:
        on_report: called with each report; returns True to stop.
    """
    stop: bool | None = None
    while True:
        try:
            report = work.send(stop)
        except StopIteration as finished:
            result: Result = finished.value
            return result
        stop = on_report(report) if on_report else None


def map_reports(work: Reporting[Report, Result], change: Callable[[Report], Other]) -> Reporting[Other, Result]:
    """Return a generator like `work` that yields `change(report)` for each report."""
    stop: bool | None = None
    while True:
        try:
            report = work.send(stop)
        except StopIteration as finished:
            result: Result = finished.value
            return result
        stop = yield change(report)
