"""Progress bar for work done in this process: a training run, a hard-readout search or a token sweep."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from softprompt_tui.cli.common import stderr_console
from softprompt_tui.cli.streams import end_soon
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
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


class ProgressDisplay:
    """A progress bar, shown if stderr is a terminal. The first Ctrl-C or hangup stops the work; the second exits."""

    def __init__(self, quiet: bool, steps: int | None = None, auto: bool = False) -> None:
        self.steps, self.auto = steps, auto
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
        loss, similarity = format_number(report.loss), format_number(report.similarity)
        metrics = f"loss {loss}  similarity {similarity}  {report.steps_per_second:.0f} steps/s"
        tokens = f"{len(report.vectors)} tokens  " if self.auto else ""
        self.bar.update(self.task, completed=report.step, description=tokens + metrics)
        return self.interrupted

    def hard(self, report: HardReport) -> bool:
        description = f"hard readout {format_number(report.similarity)}  {report.text}"
        self.bar.update(self.task, completed=report.step, total=report.steps, description=sanitize(description))
        return self.interrupted

    def sweep(self, report: SweepReport) -> bool:
        first, last = report.results[0], report.results[-1]
        description = (
            f"similarity {format_number(first[1])} with {first[0]} to {format_number(last[1])} with {last[0]}  "
            f"{report.steps_per_second:.0f} steps/s"
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
