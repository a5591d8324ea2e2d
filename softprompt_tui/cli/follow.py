"""Follow a run of the worker: draw its curve and metrics until it ends, then print its result."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from softprompt.errors import RunNotFound, RunRefused, WorkerError
from softprompt.worker import hub_variables
from softprompt.worker import protocol as p
from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.cli.common import FAILED, fail, library, narrate, print_json, stderr_console
from softprompt_tui.cli.result import print_result_and_exit
from softprompt_tui.rendering.download import describe_stage
from softprompt_tui.rendering.measures import measure_names
from softprompt_tui.rendering.numbers import format_duration, format_number, format_rate
from softprompt_tui.rendering.plots import MAX_PLOT_WIDTH, PLOT_HEIGHT, render
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from rich.live import Live

    from softprompt.worker.client import Client

MAX_TRIES = 5  # give up after this many workers in a row have died


def follow(worker: Callable[[], Client], run: str, quiet: bool) -> RunSummary | None:
    """Follow a run to its end and return it. Returns None if the user detached (Ctrl-C) or the worker was stopped."""
    is_drawn = sys.stderr.isatty() and not quiet
    try:
        with LiveCurve() if is_drawn else nullcontext(_NoCurve()) as curve:
            ended = _follow_across_workers(worker, run, curve)
    except KeyboardInterrupt:
        narrate(f"detached; the training goes on. `softprompt-tui attach {run}` shows it again.")
        return None
    if ended is None:
        narrate("the worker was stopped; the run continues after `softprompt-tui worker start`")
    return ended


def _follow_across_workers(worker: Callable[[], Client], run: str, curve: LiveCurve | _NoCurve) -> RunSummary | None:
    """Follow a run. If its worker dies, continue with the next one."""
    from softprompt.worker.client import WorkerGone

    for _ in range(MAX_TRIES):
        try:
            with worker() as client:
                return _follow_until_end(client, run, curve)
        except WorkerGone:
            curve.show_status("the worker died; another one is taking over the run")
    raise WorkerError(f"{MAX_TRIES} workers in a row died during this run. `softprompt-tui worker logs` shows why.")


def _follow_until_end(client: Client, run: str, curve: LiveCurve | _NoCurve) -> RunSummary | None:
    from softprompt.worker.summary import ENDED

    reply = client.request(p.Curve(run))
    run = reply["run"]
    message = next((message for message in client.runs if message["id"] == run), None)
    if message is None:
        raise RunNotFound(
            f"run {run} ended long ago and is no longer listed. `softprompt-tui show NAME` shows its result."
        )
    summary = RunSummary.from_message(message)
    curve.begin(summary, reply["points"])
    if summary.state in ENDED:
        _advise(client, summary)
        return summary
    is_replaced = False  # this worker is older than the client, and a newer one continues its runs
    for event in client.events():
        is_replaced = is_replaced or p.frees_older_worker(event, client.making_way)
        match event.get("type"):
            case "report" if event["run"] == run:
                curve.add_report(RunReport.from_message(event))
            case "loading" if event["run"] == run:
                curve.show_status(f"{summary.model}: {describe_stage(event['stage'], event['bytes'], event['of'])}")
            case "run" if event["run"]["id"] == run:
                summary = RunSummary.from_message(event["run"])
                if summary.state in ENDED:
                    _advise(client, summary)
                    return summary
                curve.show_status(_STATUS_BY_STATE.get(summary.state, ""))
            case "dropped" if event["run"] == run:
                raise RunRefused(f"run {run[:8]} has been dropped")
            case "bye" if event.get("reason"):
                raise WorkerError(f"the worker has ended: {event['reason']}")
            case "bye" if not (event.get("again") or is_replaced):
                return None
    return None


def _advise(client: Client, ended: RunSummary) -> None:
    """Say if the worker does not see the user's variables, which matter for a model that cannot be downloaded."""
    if ended.error_kind == "ModelUnavailable" and hub_variables.has_other_variables(client.worker):
        narrate(hub_variables.ADVICE)


_STATUS_BY_STATE = {"queued": "waiting for its turn", "paused": "paused", "running": "starting"}


def print_run_result(ended: RunSummary, as_json: bool, asked_for: bool = False) -> None:
    """Print the result of an ended run. `asked_for`: this command stopped the run, so that counts as success."""
    if ended.entry:
        print_result_and_exit(ended.name, library().open(ended.entry), ended.error, as_json, asked_for)
    elif ended.error:
        fail(f"run {ended.id[:8]} failed: {ended.error}", FAILED)
    elif as_json:
        print_json(ended.as_dict())
    else:
        narrate(f"run {ended.id[:8]} was stopped before there was anything to save")


class _NoCurve:
    """Stands in for LiveCurve if nothing is drawn."""

    def begin(self, run: RunSummary, points: list[Any]) -> None: ...
    def add_report(self, report: RunReport) -> None: ...
    def show_status(self, text: str) -> None: ...


class LiveCurve:
    """The curve so far and one line of metrics on stderr, drawn at most four times a second (twice over SSH)."""

    def __init__(self) -> None:
        self.draw_interval = 0.5 if os.environ.get("SSH_CONNECTION") else 0.25  # seconds
        self.points: list[tuple[int, float]] = []
        self.status = ""
        self.run = RunSummary("", "")
        self.latest: RunReport | None = None
        self.drawn_at = 0.0

    def __enter__(self) -> LiveCurve:
        from rich.live import Live

        self.live: Live = Live(console=stderr_console(), auto_refresh=False, transient=True)
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def begin(self, run: RunSummary, points: list[Any]) -> None:
        self.run = run
        self.points = [(step, loss) for step, loss, *_ in points]
        self.show_status(_STATUS_BY_STATE.get(run.state, ""))

    def add_report(self, report: RunReport) -> None:
        if self.latest and report.tokens != self.latest.tokens:
            self.points = []  # "auto" has moved on to the next token count
        self.latest, self.status = report, ""
        self.points = (
            [point for point in self.points if point[0] < report.step] if self._is_repeated(report) else self.points
        )
        if report.loss is not None:
            self.points.append((report.step, report.loss))
        self._draw()

    def show_status(self, text: str) -> None:
        self.status = text
        self._draw(now=True)

    def _is_repeated(self, report: RunReport) -> bool:
        """Return whether the report's step is already drawn, because another worker resumed from a checkpoint."""
        return bool(self.points) and report.step <= self.points[-1][0]

    def _draw(self, now: bool = False) -> None:
        from rich.text import Text

        if not now and time.monotonic() - self.drawn_at < self.draw_interval:
            return
        self.drawn_at = time.monotonic()
        size = shutil.get_terminal_size()
        curve = render([self.points], min(MAX_PLOT_WIDTH, size.columns - 1), min(PLOT_HEIGHT, size.lines - 4))
        text = Text.from_ansi(curve, no_wrap=True, end="\n") if curve else Text()
        text.append(sanitize(f"{self.run.id[:8]}  {self._status_line()}")[: size.columns - 1])
        self.live.update(text, refresh=True)

    def _status_line(self) -> str:
        report = self.latest
        if self.status or report is None:
            return self.status or "starting"
        tokens = f"{report.tokens} tokens  " if self.run.tokens == "auto" else ""
        seconds_left = (self.run.steps - report.step) / report.steps_per_second if report.steps_per_second else 0
        is_search = self.run.kind == "hard"
        measure, similarity = measure_names(self.run.objective)
        loss = "" if is_search else f"{measure} {format_number(report.loss)}  "
        subject = " of the best text" if is_search else ""
        return (
            f"{tokens}{report.step}/{self.run.steps}  {loss}{similarity}{subject} {format_number(report.similarity)}  "
            f"{format_rate(report.steps_per_second or 0)}/s  {format_duration(seconds_left)} left"
        )
