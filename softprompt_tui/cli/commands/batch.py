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
from softprompt.errors import without_stop
from softprompt.library.names import check_tags
from softprompt.system.priority import BATCH_NICENESS, lower_priority
from softprompt.training.errors import TrainingFailed
from softprompt_tui.cli.commands.runs import resolve_model
from softprompt_tui.cli.common import FAILED, INTERRUPTED, fail, json_option, library, load, narrate, stderr_console
from softprompt_tui.cli.options import config_from_options, plain_option, training_options
from softprompt_tui.cli.progress import ProgressLog, handle_stop_signals
from softprompt_tui.cli.streams import output_failure, standard_input
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.batches import BatchProgress, Result

MAX_SHOWN_LENGTH = 60  # characters of a prompt in a table row
COLUMNS = ("similarity", "composed", f"{'name':<24}", "prompt")
WIDTHS = tuple(map(len, COLUMNS))
HEAD = click.style("  ".join(COLUMNS), bold=True)


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    type=click.Choice(get_args(Format)),
    help="Format of FILE. By default, it is detected from the name or the first line.",
)
@click.option("--column", default="prompt", show_default=True, help="The column or JSON key that holds the prompts.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Write one JSON line per prompt to this file, never the same prompt twice.",
)
@click.option(
    "--together",
    type=click.IntRange(min=1),
    metavar="N",
    help="Train this many rows (prompts times restarts) at once. By default, as many as fit into memory.",
)
@click.option("--tag", "tags", multiple=True, help="Tag all saved soft prompts. Repeatable. FILE cannot set tags.")
@plain_option
@training_options
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Do not show progress.")
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
    """Train every prompt of FILE, many at once, and save each in the library. If FILE is -, read standard input.

    \b
    FILE is one of
      text   one prompt per line; blank lines and lines that start with # are skipped
             (\\# starts a prompt with that character); AUTOMATIC1111's lines such as
             --prompt "a fox" --steps 20 give their prompt only
      CSV    a header with a prompt column; separated by commas, semicolons, tabs or
             Excel's sep=X; AUTOMATIC1111's styles.csv
      JSONL  one object or one string per line

    Other columns or keys set the name, the model or a setting of their row: tokens, steps, stop_at, rate, init,
    objective, against, contexts, family, hidden_share, project_norm, restarts, patience, seed, long. The options are
    the defaults of all rows. Tags are not read from FILE, because caption files have other tags under that name:
    --tag sets those of all rows, and `train_batch` in Python takes some for each.

    \b
    Examples:
      softprompt-tui batch prompts.txt -k 3
      softprompt-tui batch prompts.csv --stop-at 0.99 --tag landscapes --out results.jsonl
      softprompt-tui batch captions.tsv --column caption --together 64
      grep fox captions.txt | softprompt-tui batch - -k 2 | jq .similarity

    Every finished prompt prints one line on standard output: JSON, or a table row on a terminal. With --out, the lines
    go to that file instead. After a kill, an interrupt or a hangup, the same command continues where it was and trains
    nothing twice; if you edit the file, it trains the new prompts. Prompts that the library already has, even in the
    trash, are reported at once. A prompt that fails prints its error, sets exit code 1, and is tried again next time.
    """  # fmt: skip
    from softprompt.batches import Batch, Defaults
    from softprompt.prompts.syntax import describe_syntax

    lower_priority(BATCH_NICENESS)
    model = resolve_model(model)
    config = config_from_options(settings, model)
    defaults = Defaults(config, model, device, precision, check_tags(tags), plain)
    user_library = library()
    as_table = sys.stdout.isatty() and not as_json
    with closing(
        Batch(standard_input("prompt") if file == "-" else file, defaults, format=format, column=column)
    ) as prompts:
        if prompts.unused:
            narrate(f"note: not used: {', '.join(prompts.unused)}")
        if prompts.syntax:
            narrate(f"note: {describe_syntax(prompts.syntax, plain, several=True)}")
        for note in prompts.notes:
            narrate(f"note: {note}")
        advice = f"run {'the command with the same input' if file == '-' else 'the same command'} again to continue"
        try:
            with BatchDisplay(len(prompts), quiet) as display:
                for result in prompts.train(
                    user_library, out=out, row_limit=together, on_progress=display, load=display.load
                ):
                    if out is None:
                        display.print(
                            _table_row(result) if as_table else result.as_line().decode().rstrip(),
                            HEAD if as_table else "",
                        )
        except TrainingFailed as error:  # the device is lost
            fail(f"{without_stop(error)}; {advice}", FAILED)
    display.finish(advice)


def _table_row(result: Result) -> str:
    prompt = sanitize(
        result.prompt if len(result.prompt) <= MAX_SHOWN_LENGTH else result.prompt[: MAX_SHOWN_LENGTH - 1] + "…"
    )
    if result.error is not None:
        return f"line {result.line}: {sanitize(result.error[1])}"
    numbers = ("" if value is None else format_number(value) for value in (result.similarity, result.composed))
    similarity, composed = (f"{value:>{width}}" for value, width in zip(numbers, WIDTHS, strict=False))
    state = {"before": "  (from before)", "trashed": "  (in the trash)"}.get(result.state, "")
    return f"{similarity}  {composed}  {sanitize(result.name):<{WIDTHS[2]}}  {prompt}{state}"


class BatchDisplay:
    """Draws a progress bar if stderr is a terminal, and prints a line every minute if it is not.

    The first Ctrl-C saves a checkpoint and stops the batch.
    """

    def __init__(self, total: int, quiet: bool) -> None:
        self.total = total
        self.is_drawn = sys.stderr.isatty() and not quiet
        self.log = ProgressLog(quiet)
        self.has_logged_begin = self.has_logged_resumed = False
        self.shares_terminal = sys.stdout.isatty()
        self.interrupted = self.printed = False
        self.latest: BatchProgress | None = None

    def __enter__(self) -> BatchDisplay:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
        self.bar = Bar(
            *columns, console=stderr_console(), disable=not self.is_drawn, transient=True, redirect_stdout=False
        )
        self.task = self.bar.add_task("reading", total=self.total)
        self.before = handle_stop_signals(self._interrupt)
        if self.is_drawn:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.is_drawn:
            self.bar.stop()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self, progress: BatchProgress) -> bool:
        self.latest = progress
        if self.is_drawn:
            self.bar.update(self.task, completed=progress.done, description=sanitize(_describe_progress(progress)))
        if progress.resumed and not self.has_logged_resumed:
            self.has_logged_resumed = True
            self.log.print(f"continued from a checkpoint: {_count_prompts(progress.resumed)}")
        self.log.print_sometimes(lambda: _describe_state(progress))
        return (
            self.interrupted or output_failure() is not None
        )  # also stop if stdout is broken and nobody can read the results

    def print(self, line: str, head: str = "") -> None:
        """Print a line on stdout, above the bar if both share a terminal. Prints `head` before the first line."""
        if self.is_drawn and self.shares_terminal:
            self.bar.stop()
        if head and not self.printed:
            click.echo(head)
        self.printed = True
        click.echo(line)
        if self.is_drawn and self.shares_terminal:
            self.bar.start()

    def load(self, model: str, device: str, precision: str) -> Any:
        """Load an encoder. Hides the bar meanwhile, because a download shows its own."""
        if self.is_drawn:
            self.bar.stop()
        try:
            encoder = load(model, device, precision)
        finally:
            if self.is_drawn:
                self.bar.start()
        if self.latest is not None and not self.has_logged_begin:  # not earlier: bad input gives one line only
            self.has_logged_begin = True
            self.log.print(_describe_begin(self.latest))
        return encoder

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if self.interrupted or self.latest is None or self.latest.phase != "training":
            raise KeyboardInterrupt  # nothing has been trained yet, so there is nothing to save
        self.interrupted = True

    def finish(self, advice: str) -> None:
        """Print the totals, then exit with 1 if prompts failed or with 130 if the batch was interrupted."""
        progress = self.latest
        if progress is None:
            return
        rate = (
            f" at {progress.trained / progress.seconds:.1f} a second" if progress.trained and progress.seconds else ""
        )
        totals = [f"{progress.trained:,} trained{rate}"]
        totals += [f"{progress.before:,} from before"] * bool(progress.before)
        totals += [f"{progress.failed:,} failed"] * bool(progress.failed)
        totals += ["unfinished prompts have a checkpoint"] * (progress.done < self.total)
        narrate(f"{progress.done:,} of {self.total:,} prompts: {', '.join(totals)}")
        if progress.done < self.total and not self.interrupted:
            narrate(f"the reader of the results is gone; {advice}")
        elif progress.done < self.total:
            fail(f"interrupted; {advice}", INTERRUPTED)
        if progress.failed:
            raise SystemExit(FAILED)


def _count_prompts(count: int) -> str:
    return f"{count:,} prompt{'s' * (count != 1)}"


def _describe_begin(progress: BatchProgress) -> str:
    """Return the first line of the log."""
    parts = [f"{progress.before:,} from before"] * bool(progress.before)
    parts += [f"{progress.failed:,} failed"] * bool(progress.failed)
    parts += [f"{progress.total - progress.done:,} to train"]
    return f"{_count_prompts(progress.total)}: {', '.join(parts)}"


def _describe_state(progress: BatchProgress) -> str:
    """Return the line of the log for every minute."""
    percent = 100 * (progress.done + progress.in_progress) / progress.total
    failed = f", {progress.failed:,} failed" if progress.failed else ""
    return f"{progress.done:,} of {progress.total:,} done{failed}, {percent:.0f} %  {_describe_progress(progress)}"


def _describe_progress(progress: BatchProgress) -> str:
    if progress.phase != "training":
        return f"loading {progress.model}" if progress.phase == "loading" else "checking earlier results"
    rate = progress.prompts_per_second
    if not rate:
        return "training"
    seconds_left = (progress.total - progress.done - progress.in_progress) / rate
    return (
        f"{rate:.1f} prompts/s  {_format_clock(max(0.0, seconds_left))} left"
        if rate >= 1
        else f"{1 / rate:.1f} s per prompt  {_format_clock(max(0.0, seconds_left))} left"
    )


def _format_clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
