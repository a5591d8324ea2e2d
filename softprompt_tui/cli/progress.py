"""Progress bar for work done in this process: a training run, a hard-readout search or a token sweep."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from softprompt.objectives.workspace import Workspace
from softprompt_tui.cli.common import stderr_console
from softprompt_tui.cli.streams import end_soon
from softprompt_tui.rendering.measures import measure_names
from softprompt_tui.rendering.numbers import format_number, format_rate
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.config import TrainConfig
    from softprompt.discrete import HardReport
    from softprompt.training.loop import Report
    from softprompt.training.token_sweep import SweepReport

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


class ProgressDisplay:
    """A progress bar, shown if stderr is a terminal. The first Ctrl-C or hangup stops the work; the second exits."""

    def __init__(self, quiet: bool, steps: int | None = None, config: TrainConfig | None = None) -> None:
        self.steps, self.auto = steps, config is not None and config.tokens == "auto"
        self.measures = measure_names(config.objective if config else "")
        self.workspace = _ShownStages(self)
        self.interrupted = False
        self.shown = sys.stderr.isatty() and not quiet

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
        self.bar.update(self.task, completed=report.step, description=tokens + metrics)
        return self.interrupted

    def stage(self, text: str) -> None:
        """Show what goes on besides training. Raises KeyboardInterrupt if the user interrupts before the first step."""
        self.bar.update(self.task, description=sanitize(text))
        if self.interrupted and not self.bar.tasks[self.task].completed:
            raise KeyboardInterrupt

    def hard(self, report: HardReport) -> bool:
        description = f"hard readout {format_number(report.similarity)}  {report.text}"
        self.bar.update(self.task, completed=report.step, total=report.steps, description=sanitize(description))
        return self.interrupted

    def sweep(self, report: SweepReport) -> bool:
        first, last = report.results[0], report.results[-1]
        description = (
            f"{self.measures[1]} {format_number(first[1])} with {first[0]} to {format_number(last[1])} with {last[0]}  "
            f"{format_rate(report.steps_per_second)} steps/s"
        )
        self.bar.update(self.task, completed=report.step, description=description)
        return self.interrupted

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
