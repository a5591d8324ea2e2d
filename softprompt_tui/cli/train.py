"""`softprompt-tui train`."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from softprompt.config import TrainConfig
from softprompt.errors import ConfigError, PromptError
from softprompt.job import Job, carry_out
from softprompt_tui.cli.common import (
    FAILED,
    complete_entry,
    fail,
    json_option,
    library,
    load,
    stderr_console,
)
from softprompt_tui.cli.options import config_of, training_options
from softprompt_tui.cli.result import finish
from softprompt_tui.cli.runs import resolved, submit
from softprompt_tui.inert import inert

if TYPE_CHECKING:
    from softprompt.encoder import TextEncoder
    from softprompt.prompt import SoftPrompt
    from softprompt.training import Report

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what ends a training early: what it has reached is saved
LONGEST_INPUT = 1 << 20  # bytes; no prompt is that long, and standard input may never end


@click.command(short_help="Train a soft prompt for PROMPT and save it.")
@click.argument("prompt")
@click.option("--name", help="Name in the library; made from the prompt's words unless given.")
@training_options
@click.option(
    "--from",
    "start_name",
    metavar="NAME",
    shell_complete=complete_entry,
    help="The saved soft prompt to begin from; sets --init soft.",
)
@click.option(
    "--background",
    "-b",
    is_flag=True,
    help="Hand it to the worker, which trains one run after another and outlives this terminal; prints the run's id.",
)
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def train(
    prompt: str,
    name: str | None,
    model: str,
    device: str,
    precision: str,
    start_name: str | None,
    background: bool,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a soft prompt that means PROMPT, save it in the library, and show it. With - as PROMPT, it is read from standard input.

    \b
    Examples:
      softprompt-tui train "a red fox asleep in deep snow under pine trees" -k 3
      softprompt-tui train "a red fox asleep in deep snow" -k auto --name fox
      softprompt-tui train "a red fox asleep in deep snow" -k 2 --init prompt
      softprompt-tui train "a red fox asleep in deep snow" -k 4 --objective mixed --family sdxl
      softprompt-tui train "a red fox asleep in deep snow" --background

    Ctrl-C ends the training and keeps the best so far; a second one quits without saving. A hang-up ends it the same way; with
    --background the training goes on (`runs` lists it, `attach` shows it).
    """  # fmt: skip
    if prompt == "-":
        prompt = _standard_input()
    here = library()
    if start_name:
        settings["init"] = "soft"
    elif settings["init"] == "soft":
        raise ConfigError("--init soft needs the soft prompt to begin from: --from NAME")
    config = config_of(settings)
    job = Job(prompt, config, resolved(model), device, precision, here.free_name(name) if name is not None else "")
    here.prepare()
    start = here.open(start_name) if start_name else None
    if background:
        submit(job, start.id if start else "", as_json)
        return
    train_here(job, start.prompt if start else None, as_json, quiet)


def train_here(job: Job, start: SoftPrompt | None, as_json: bool, quiet: bool, encoder: TextEncoder | None = None) -> None:
    """Trains in this process, saves and shows; `encoder` is the job's, where it is loaded already."""
    # imports torch, 2-4 s: not before what was asked for is known to make sense
    encoder = encoder or load(job.model, job.device, job.precision)
    with Progress(job.config, quiet) as progress:
        outcome = carry_out(job, encoder, library(), start=start, on_report=progress)
    if outcome.entry is None:
        fail(outcome.failure, FAILED)
    finish(job.name, outcome.entry, outcome.failure, as_json)


def _standard_input() -> str:
    raw = sys.stdin.buffer.read(LONGEST_INPUT)
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise PromptError(f"standard input is no UTF-8 text ({error.reason} at byte {error.start})") from error


class Progress:
    """A progress bar on stderr, where that is a terminal; the first Ctrl-C or hang-up ends the training, a second the program."""

    def __init__(self, config: TrainConfig, quiet: bool) -> None:
        self.config = config
        self.interrupted = False
        self.shown = sys.stderr.isatty() and not quiet

    def __enter__(self) -> Progress:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, console=stderr_console(), disable=not self.shown, transient=True)
        self.task = self.bar.add_task("starting", total=self.config.steps)
        self.before = {number: signal.signal(number, self._interrupt) for number in ENDING}
        if self.shown:
            self.bar.start()
        return self

    def __call__(self, report: Report) -> bool:
        figures = f"loss {report.loss:.4f}  similarity {report.similarity:.4f}  {report.steps_per_second:.0f} steps/s"
        tokens = f"{len(report.vectors)} tokens  " if self.config.tokens == "auto" else ""
        self.bar.update(self.task, completed=report.step, description=tokens + figures)
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
        self.bar.update(self.task, description=inert("stopping; the best so far is kept"))
