"""Progress bar for work done in this process: a training run, a hard-readout search or a token sweep."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from softprompt.objectives.workspace import Workspace
from softprompt_tui.cli.common import narrate, stderr_console
from softprompt_tui.cli.streams import end_soon
from softprompt_tui.rendering.measures import measure_names
from softprompt_tui.rendering.numbers import format_duration, format_number, format_rate
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.config import TrainConfig
    from softprompt.discrete import HardReport
    from softprompt.training.loop import Report
    from softprompt.training.token_sweep import SweepReport

LOG_SECONDS = 60.0
STOP_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)  # each of these stops the work early and saves the best result so far


def handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> dict[int, Any]:
    """Install `handler` for the stop signals, leaving ignored signals alone (nohup). Returns the old handlers."""

    def end(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:  # SIGINT comes from a user at the terminal, who can wait for slow output
            end_soon()
        handler(number, frame)

    return {
        number: signal.signal(number, end) for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    }


class _ShownStages(Workspace):
    """Shows the stages of an objective in the progress bar."""

    def __init__(self, display: ProgressDisplay) -> None:
        self._display = display

    def post_stage(self, stage: str) -> None:
        self._display.stage(stage)


class ProgressLog:
    """Prints a line on stderr now and then if it is not a terminal, such as the log file of a command under nohup."""

    def __init__(self, quiet: bool) -> None:
        self.is_on = not (quiet or sys.stderr.isatty())
        self._printed_at = time.monotonic()

    def print(self, line: str) -> None:
        if self.is_on:
            self._printed_at = time.monotonic()
            narrate(line)

    def print_sometimes(self, describe: Callable[[], str]) -> None:
        """Print the description if a minute has passed since the last line."""
        if self.is_on and time.monotonic() - self._printed_at >= LOG_SECONDS:
            self.print(describe())


class ProgressDisplay:
    """A progress bar if stderr is a terminal, otherwise a line every minute.

    The first Ctrl-C or hangup stops the work; the second exits.
    """

    def __init__(self, quiet: bool, steps: int | None = None, config: TrainConfig | None = None) -> None:
        self.steps, self.auto = steps, config is not None and config.tokens == "auto"
        self.measures = measure_names(config.objective if config else "")
        self.workspace = _ShownStages(self)
        self.interrupted = False
        self.shown = sys.stderr.isatty() and not quiet
        self.log = ProgressLog(quiet)

    def __enter__(self) -> ProgressDisplay:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=stderr_console(), disable=not self.shown, transient=True)
        self.task = self.bar.add_task("starting", total=self.steps)
        self.before = handle_stop_signals(self._interrupt)
        if self.shown:
            self.bar.start()
        return self

    def training(self, report: Report) -> bool:
        loss, similarity = self.measures
        metrics = (
            f"{loss} {format_number(report.loss)}  {similarity} {format_number(report.similarity)}  "
            f"{format_rate(report.steps_per_second)} steps/s"
        )
        tokens = f"{len(report.vectors)} tokens  " if self.auto else ""
        self._update(report.step, tokens + metrics)
        return self.interrupted

    def stage(self, text: str) -> None:
        """Show what goes on besides training. Raises KeyboardInterrupt if the user interrupts before the first step."""
        self.bar.update(self.task, description=sanitize(text))
        if self.interrupted and not self.bar.tasks[self.task].completed:
            raise KeyboardInterrupt

    def hard(self, report: HardReport) -> bool:
        description = f"hard readout {format_number(report.similarity)}  {report.text}"
        self.steps = report.steps
        self._update(report.step, description)
        return self.interrupted

    def sweep(self, report: SweepReport) -> bool:
        first, last = report.results[0], report.results[-1]
        description = (
            f"{self.measures[1]} {format_number(first[1])} with {first[0]} to {format_number(last[1])} with {last[0]}  "
            f"{format_rate(report.steps_per_second)} steps/s"
        )
        self._update(report.step, description)
        return self.interrupted

    def _update(self, step: int, description: str) -> None:
        self.bar.update(self.task, completed=step, total=self.steps, description=sanitize(description))
        self.log.print_sometimes(lambda: self._log_line(step, description))

    def _log_line(self, step: int, description: str) -> str:
        left = self.bar.tasks[self.task].time_remaining
        rest = "" if left is None else f"  {format_duration(left)} left"
        return f"step {step:,} of {self.steps:,}  {description}{rest}"

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.bar.stop()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True
        self.bar.update(self.task, description=sanitize("stopping; the best so far will be saved"))
