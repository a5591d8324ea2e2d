"""Following a run of the worker: its curve and figures on the terminal until it ends, and then its result."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from softprompt.errors import RunNotFound, RunRefused, WorkerError
from softprompt.worker import protocol as p
from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.cli.common import FAILED, fail, library, narrate, print_json, stderr_console
from softprompt_tui.cli.result import finish
from softprompt_tui.rendering.numbers import duration, figure
from softprompt_tui.rendering.plots import HEIGHT, WIDEST, render
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from rich.live import Live

    from softprompt.worker.client import Client

MAX_TRIES = 5  # workers that die one after another before it is given up


def follow(worker: Callable[[], Client], run: str, quiet: bool) -> RunSummary | None:
    """The run as it ended; None where it was left before: by Ctrl-C, or because the worker was told to end."""
    shown = sys.stderr.isatty() and not quiet
    try:
        with Picture() if shown else nullcontext(_Nothing()) as picture:
            ended = _through_deaths(worker, run, picture)
    except KeyboardInterrupt:
        narrate(f"detached; the training goes on: `softprompt-tui attach {run}` comes back to it")
        return None
    if ended is None:
        narrate("the worker was told to end; the run goes on when it is started again: `softprompt-tui worker start`")
    return ended


def _through_deaths(worker: Callable[[], Client], run: str, picture: Picture | _Nothing) -> RunSummary | None:
    """Goes on with the next worker where one dies."""
    from softprompt.worker.client import WorkerGone

    for _ in range(MAX_TRIES):
        try:
            with worker() as client:
                return _until_ended(client, run, picture)
        except WorkerGone:
            picture.say("the worker is gone; another one goes on with the run")
    raise WorkerError(
        f"{MAX_TRIES} workers died one after another over this run: `softprompt-tui worker logs` tells why"
    )


def _until_ended(client: Client, run: str, picture: Picture | _Nothing) -> RunSummary | None:
    from softprompt.worker.summary import ENDED

    curve = client.request(p.Curve(run))
    run = curve["run"]
    listed = next((one for one in client.runs if one["id"] == run), None)
    if listed is None:
        raise RunNotFound(f"run {run} ended long ago: `softprompt-tui show` shows what it saved")
    now = RunSummary.from_message(listed)
    picture.begin(now, curve["points"])
    if now.state in ENDED:
        return now
    made_way = False  # an older worker, whose runs a newer one goes on with
    for event in client.events():
        made_way = made_way or p.makes_way(event, client.making_way)
        match event.get("type"):
            case "report" if event["run"] == run:
                picture.report(RunReport.from_message(event))
            case "loading" if event["run"] == run:
                picture.say(f"fetching {now.model}: {event['bytes'] / 1e6:.0f} of {event['of'] / 1e6:.0f} MB")
            case "run" if event["run"]["id"] == run:
                now = RunSummary.from_message(event["run"])
                if now.state in ENDED:
                    return now
                picture.say(_STATES.get(now.state, ""))
            case "dropped" if event["run"] == run:
                raise RunRefused(f"run {run[:8]} was dropped meanwhile")
            case "bye" if event.get("reason"):
                raise WorkerError(f"the worker has ended: {event['reason']}")
            case "bye" if not (event.get("again") or made_way):
                return None
    return None


_STATES = {"queued": "waiting for its turn", "paused": "paused", "running": "beginning"}


def show_result(ended: RunSummary, as_json: bool, asked_for: bool = False) -> None:
    """What a run came to; `asked_for` where its end was just what was asked for, and no interruption."""
    if ended.entry:
        finish(ended.name, library().open(ended.entry), ended.error, as_json, asked_for)
    elif ended.error:
        fail(f"run {ended.id[:8]} failed: {ended.error}", FAILED)
    elif as_json:
        print_json(ended.as_dict())
    else:
        narrate(f"run {ended.id[:8]} was stopped before it had anything to save")


class _Nothing:
    """Stands where nothing is shown."""

    def begin(self, run: RunSummary, points: list[Any]) -> None: ...
    def report(self, report: RunReport) -> None: ...
    def say(self, words: str) -> None: ...


class Picture:
    """The curve so far and one line of figures, on stderr; drawn at most four times a second, twice over SSH."""

    def __init__(self) -> None:
        self.every = 0.5 if os.environ.get("SSH_CONNECTION") else 0.25
        self.points: list[tuple[int, float]] = []
        self.words = ""
        self.run = RunSummary("", "")
        self.latest: RunReport | None = None
        self.drawn_at = 0.0

    def __enter__(self) -> Picture:
        from rich.live import Live

        self.live: Live = Live(console=stderr_console(), auto_refresh=False, transient=True)
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def begin(self, run: RunSummary, points: list[Any]) -> None:
        self.run = run
        self.points = [(step, loss) for step, loss, *_ in points]
        self.say(_STATES.get(run.state, ""))

    def report(self, report: RunReport) -> None:
        if self.latest and report.tokens != self.latest.tokens:
            self.points = []  # "auto" goes on to the next number of tokens
        self.latest, self.words = report, ""
        self.points = (
            [point for point in self.points if point[0] < report.step] if self._is_back(report) else self.points
        )
        if report.loss is not None:
            self.points.append((report.step, report.loss))
        self._draw()

    def say(self, words: str) -> None:
        self.words = words
        self._draw(now=True)

    def _is_back(self, report: RunReport) -> bool:
        return bool(self.points) and report.step <= self.points[-1][0]

    def _draw(self, now: bool = False) -> None:
        from rich.text import Text

        if not now and time.monotonic() - self.drawn_at < self.every:
            return
        self.drawn_at = time.monotonic()
        size = shutil.get_terminal_size()
        curve = render([self.points], min(WIDEST, size.columns - 1), min(HEIGHT, size.lines - 4))
        text = Text.from_ansi(curve, no_wrap=True, end="\n") if curve else Text()
        text.append(sanitize(f"{self.run.id[:8]}  {self._figures()}")[: size.columns - 1])
        self.live.update(text, refresh=True)

    def _figures(self) -> str:
        now = self.latest
        if self.words or now is None:
            return self.words or "beginning"
        tokens = f"{now.tokens} tokens  " if self.run.tokens == "auto" else ""
        left = (self.run.steps - now.step) / now.steps_per_second if now.steps_per_second else 0
        is_search = self.run.kind == "hard"
        loss = "" if is_search else f"loss {figure(now.loss)}  "
        of_what = " of the best text" if is_search else ""
        return (
            f"{tokens}{now.step}/{self.run.steps}  {loss}similarity{of_what} {figure(now.similarity)}  "
            f"{now.steps_per_second or 0:.0f}/s  {duration(left)} left"
        )
