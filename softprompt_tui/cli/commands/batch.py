"""`softprompt-tui batch`."""

from __future__ import annotations

import signal
import sys
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, get_args

import click

from softprompt.batches.rows import Format
from softprompt.library.names import check_tags
from softprompt.system.priority import BATCH, lower_priority
from softprompt.training.errors import TrainingFailed
from softprompt_tui.cli.commands.runs import resolved
from softprompt_tui.cli.common import FAILED, INTERRUPTED, fail, json_option, library, load, narrate, stderr_console
from softprompt_tui.cli.options import config_of, plain_option, training_options
from softprompt_tui.cli.progress import heed_endings
from softprompt_tui.cli.streams import output_failure, standard_input
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.batches import BatchProgress, Result

MAX_SHOWN_LENGTH = 60  # characters of a prompt in a line for people
COLUMNS = ("similarity", "composed", f"{'name':<24}", "prompt")
WIDTHS = tuple(map(len, COLUMNS))
HEAD = click.style("  ".join(COLUMNS), bold=True)


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    type=click.Choice(get_args(Format)),
    help="What FILE is; recognised by its name or its first line unless given.",
)
@click.option(
    "--column", default="prompt", show_default=True, help="The column, or JSON's key, that holds the prompts."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write the results to this file, a line of JSON for each prompt, once.",
)
@click.option(
    "--together",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train this many at once, restarts counted; by the device's memory unless given.",
)
@click.option("--tag", "tags", multiple=True, help="Give what is saved this tag; repeatable.")
@plain_option
@training_options
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress bar.")
def batch(
    file: str,
    format: Format | None,
    column: str,
    out: Path | None,
    together: int | None,
    tags: tuple[str, ...],
    plain: bool,
    model: str,
    device: str,
    precision: str,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train every prompt of FILE, many together, and save each in the library. With - as FILE, standard input is read.

    \b
    FILE is one of
      text   a prompt a line; blank lines and lines that begin with # are passed over
             (\\# begins a prompt with that sign); of lines such as
             --prompt "a fox" --steps 20, AUTOMATIC1111's, only the prompt is taken
      CSV    a header with a prompt column; commas, semicolons, tabs, or what Excel's
             first line sep=X names; AUTOMATIC1111's styles.csv
      JSONL  an object or a string a line

    Beside prompt, a column or key can be name, model, or a setting for its row alone: tokens, steps, stop_at, rate, init, objective,
    against, contexts, family, hidden_share, project_norm, restarts, patience, seed, long. The options hold for rows that say nothing
    else.

    \b
    Examples:
      softprompt-tui batch prompts.txt -k 3
      softprompt-tui batch prompts.csv --stop-at 0.99 --tag landscapes --out results.jsonl
      softprompt-tui batch captions.tsv --column caption --together 64
      grep fox captions.txt | softprompt-tui batch - -k 2 | jq .similarity

    Every prompt gives one line on standard output as it finishes: JSON, or on a terminal a row of a table. Killed or interrupted, the same command
    goes on where it was and trains nothing twice; of an edited file it trains what is new. What is in the library already, be it in the
    trash, is told at once. A prompt that fails is a line with its error, ends the command with 1, and is tried again the next time.
    """  # fmt: skip
    from softprompt.batches import Batch, Defaults
    from softprompt.prompts.syntax import describe_syntax

    lower_priority(BATCH)
    defaults = Defaults(config_of(settings), resolved(model), device, precision, check_tags(tags), plain)
    here = library()
    shown = sys.stdout.isatty() and not as_json
    with closing(
        Batch(standard_input("prompt") if file == "-" else file, defaults, format=format, column=column)
    ) as work:
        if work.unused:
            narrate(f"note: not used: {', '.join(work.unused)}")
        if work.syntax:
            narrate(f"note: {describe_syntax(work.syntax, plain, several=True)}")
        for note in work.notes:
            narrate(f"note: {note}")
        again = f"{'the same input' if file == '-' else 'the same command'} again goes on from here"
        try:
            with Watch(len(work), quiet) as watch:
                for result in work.train(here, out=out, places=together, on_progress=watch, load=watch.load):
                    if out is None:
                        watch.print(
                            _words(result) if shown else result.as_line().decode().rstrip(), HEAD if shown else ""
                        )
        except TrainingFailed as error:  # the device is gone
            fail(f"{error}; {again}", FAILED)
    watch.finish(again)


def _words(result: Result) -> str:
    prompt = sanitize(
        result.prompt if len(result.prompt) <= MAX_SHOWN_LENGTH else result.prompt[: MAX_SHOWN_LENGTH - 1] + "…"
    )
    if result.error is not None:
        return f"line {result.line}: {sanitize(result.error[1])}"
    figures = ("" if value is None else f"{value:.4f}" for value in (result.similarity, result.composed))
    similarity, composed = (f"{value:>{width}}" for value, width in zip(figures, WIDTHS, strict=False))
    there = {"before": "  (from before)", "trashed": "  (in the trash)"}.get(result.state, "")
    return f"{similarity}  {composed}  {sanitize(result.name):<{WIDTHS[2]}}  {prompt}{there}"


class Watch:
    """A progress bar on stderr, where that is a terminal, and what ends the batch: the first Ctrl-C lets it write down what is under way."""

    def __init__(self, total: int, quiet: bool) -> None:
        self.total = total
        self.shown = sys.stderr.isatty() and not quiet
        self.both = sys.stdout.isatty()
        self.interrupted = self.printed = False
        self.latest: BatchProgress | None = None

    def __enter__(self) -> Watch:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        self.bar = Bar(
            *columns, console=stderr_console(), disable=not self.shown, transient=True, redirect_stdout=False
        )
        self.task = self.bar.add_task("reading", total=self.total)
        self.before = heed_endings(self._interrupt)
        if self.shown:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown:
            self.bar.stop()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self, progress: BatchProgress) -> bool:
        self.latest = progress
        if self.shown:
            self.bar.update(self.task, completed=progress.done, description=sanitize(_told(progress)))
        return self.interrupted or output_failure() is not None  # what nobody can read need not be trained now

    def print(self, line: str, head: str = "") -> None:
        """A line on stdout, the first one under its `head`; where that is the bar's terminal too, above the bar."""
        if self.shown and self.both:
            self.bar.stop()
        if head and not self.printed:
            click.echo(head)
        self.printed = True
        click.echo(line)
        if self.shown and self.both:
            self.bar.start()

    def load(self, model: str, device: str, precision: str) -> Any:
        """The encoder; a download has a bar of its own."""
        if self.shown:
            self.bar.stop()
        try:
            return load(model, device, precision)
        finally:
            if self.shown:
                self.bar.start()

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupted or self.latest is None or self.latest.phase != "training":
            raise KeyboardInterrupt  # nothing is under way that would be lost
        self.interrupted = True

    def finish(self, again: str) -> None:
        """Says what became of it all; ends the program with 1 where some failed, with 130 where it was interrupted."""
        progress = self.latest
        if progress is None:
            return
        rate = (
            f" at {progress.trained / progress.seconds:.1f} a second" if progress.trained and progress.seconds else ""
        )
        told = [f"{progress.trained:,} trained{rate}"]
        told += [f"{progress.before:,} from before"] * bool(progress.before)
        told += [f"{progress.failed:,} failed"] * bool(progress.failed)
        told += ["what is under way goes on from its checkpoint"] * (progress.done < self.total)
        narrate(f"{progress.done:,} of {self.total:,} prompts: {', '.join(told)}")
        if progress.done < self.total and not self.interrupted:
            narrate(f"nobody reads the results any more; {again}")
        elif progress.done < self.total:
            fail(f"interrupted; {again}", INTERRUPTED)
        if progress.failed:
            raise SystemExit(FAILED)


def _told(progress: BatchProgress) -> str:
    if progress.phase != "training":
        return f"loading {progress.model}" if progress.phase == "loading" else "looking what is there"
    rate = progress.prompts_per_second
    if not rate:
        return "training"
    left = (progress.total - progress.done - progress.under_way) / rate
    return (
        f"{rate:.1f} prompts/s  {_clock(max(0.0, left))} left"
        if rate >= 1
        else f"{1 / rate:.1f} s a prompt  {_clock(max(0.0, left))} left"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
