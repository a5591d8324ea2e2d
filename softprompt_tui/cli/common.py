"""Shared by all commands: errors and exit codes, `--json`, tables, completion and the options of several commands."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import CompletionItem

from softprompt.errors import STORAGE_FAILURES, EntryDamaged, SoftPromptError, is_bad_input, needs_text_encoder
from softprompt_tui import ERRORS_AS_JSON, PROGRAM
from softprompt_tui.cli import streams
from softprompt_tui.cli.arguments import leave_deleted_folder
from softprompt_tui.crash_report import report_crash
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from softprompt.encoders.clip.text_encoder import TextEncoder
    from softprompt.library import Library
    from softprompt.training.model_kinds import Model

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130
MAX_COMPLETIONS = 500
GAP, MIN_STRETCH_WIDTH = "  ", 8


def run(program: click.Command) -> NoReturn:
    """Run the command line. An error prints one line on stderr, never a traceback, and sets the exit code."""
    thread_hook, threading.excepthook = threading.excepthook, _report_thread
    try:
        streams.prepare()
        leave_deleted_folder()
        code = program.main(prog_name=PROGRAM, standalone_mode=False)
    except SystemExit as end:
        code = end.code
    except Exception as error:
        code = _explain(error)
    except KeyboardInterrupt:
        code = _print_error("interrupted", INTERRUPTED)
    finally:
        threading.excepthook = thread_hook
    code = code if isinstance(code, int) else 0
    failure = streams.output_failure()
    if failure and not streams.is_reader_gone(failure):
        code = _print_error(f"cannot write standard output: {failure.strerror}", code or FAILED)
    raise SystemExit(code)


def _explain(error: Exception) -> int:
    """Print in one line why a command failed and return its exit code. Unexpected errors go into a report file."""
    match error:
        case SoftPromptError():
            return _print_error(str(error), BAD_INPUT if is_bad_input(error) else FAILED, type(error).__name__)
        case click.exceptions.NoArgsIsHelpError():  # a group without a subcommand shows its help
            click.echo(error.format_message())
            return 0
        case click.ClickException():  # click would print the user's text unsanitized
            return _print_error(error.format_message(), error.exit_code)
        case click.Abort():
            return _print_error("interrupted", INTERRUPTED)
        case OSError() if error.filename is not None or error.errno in STORAGE_FAILURES:
            return _print_error(
                f"{error.strerror}{f': {error.filename}' if error.filename is not None else ''}", FAILED
            )
        case MemoryError():
            return _print_error("not enough memory. Close other programs or train fewer prompts at once", FAILED)
        case _:
            return _print_error(report_crash(error), FAILED)


def _report_thread(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and failed.exc_type is not SystemExit:
        _print_error(report_crash(failed.exc_value), FAILED)


def _print_error(message: str, code: int, kind: str = "") -> int:
    if os.environ.get(ERRORS_AS_JSON):
        click.echo(json.dumps({"kind": kind, "message": sanitize(message)}), err=True)
    else:
        click.echo(f"{PROGRAM}: {sanitize(message)}", err=True)
    return code


def fail(message: str, code: int) -> NoReturn:
    raise SystemExit(_print_error(message, code))


def narrate(*lines: str) -> None:
    """Print lines for people on stderr. A line break inside one of them is shown as ␊, because it may be a user's."""
    for line in lines:
        click.echo(sanitize(line), err=True)


class Narrator(logging.Handler):
    """Prints this program's own warnings on stderr. Warnings from libraries go only to the log."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(logging.Filter("softprompt"))

    def emit(self, record: logging.LogRecord) -> None:
        narrate(f"warning: {record.getMessage()}")


def print_json(value: object) -> None:
    """Print one JSON document. It is ASCII, so that no text in it can control the terminal."""
    try:
        text = json.dumps(value, indent=2, ensure_ascii=True, allow_nan=False)
    except ValueError:  # losses of a diverged training run are NaN
        text = json.dumps(_finite(value), indent=2, ensure_ascii=True, allow_nan=False)
    click.echo(text)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_damaged(damaged: Iterable[EntryDamaged]) -> None:
    for error in damaged:
        narrate(f"warning: {error}")


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = (), stretch: int | None = None
) -> None:
    """Print a plain table on stdout.

    Args:
        right: the columns that are aligned right.
        stretch: the column that is cut so that the table fits the terminal.
    """
    from rich.cells import cell_len, set_cell_size

    shown = [[sanitize(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *shown, strict=True)]
    if stretch is not None and sys.stdout.isatty():
        other_widths = sum(widths) - widths[stretch] + len(GAP) * (len(widths) - 1)
        widths[stretch] = max(
            MIN_STRETCH_WIDTH, min(widths[stretch], shutil.get_terminal_size().columns - other_widths)
        )

    def aligned(cell: str, i: int) -> str:
        if cell_len(cell) > widths[i]:
            return set_cell_size(cell, widths[i] - 1) + "…"
        space = " " * (widths[i] - cell_len(cell))
        return space + cell if i in right else cell + space

    click.secho(GAP.join(aligned(cell, i) for i, cell in enumerate(headings)).rstrip(), bold=True)
    for row in shown:
        click.echo(GAP.join(aligned(cell, i) for i, cell in enumerate(row)).rstrip())


def load(model: str, device: str, precision: str = "float32") -> Model:
    """Load a model. Shows a progress bar on stderr if the weights must be downloaded first."""
    from softprompt.encoders.catalog import model_kind
    from softprompt.encoders.loading import load_model

    with streams.native_errors_logged(), download_bar(model) as bar:
        on_stage = bar.show_stage if model_kind(model) == "causal" and sys.stderr.isatty() else None
        return load_model(model, device, precision, bar, on_stage)


def load_text_encoder(model: str, device: str, what: str, precision: str = "float32") -> TextEncoder:
    """Load a text encoder like `load`.

    Args:
        what: what needs it, such as "a comparison".

    Raises:
        ModelRefused: the model is a language model. It is not loaded.
    """
    from softprompt.encoders.catalog import model_kind
    from softprompt.encoders.clip.text_encoder import as_text_encoder

    if model_kind(model) == "causal":
        raise needs_text_encoder(model, what)
    return as_text_encoder(load(model, device, precision), what)


class download_bar:
    """A context manager that is the progress callback for `fetch`. Draws a bar once the first bytes arrive."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.bar: Progress | None = None

    def __enter__(self) -> Any:
        return self

    def __call__(self, here: int, size: int) -> None:
        if not size:  # a busy hub has not reported the size yet
            return
        if self.bar is None:
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=stderr_console(), disable=not sys.stderr.isatty())
            self.bar.start()
            self.task = self.bar.add_task(sanitize(self.name), total=size, completed=here)
        self.bar.update(self.task, total=size, completed=here)

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def show_stage(self, stage: str) -> None:
        """Print the next stage of converting a model, below the bar."""
        self.__exit__()
        self.bar = None
        narrate(f"{stage} …")


def stderr_console() -> Console:
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, emoji=False)


def complete_entry(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from softprompt.library import Library

    return _completions(
        [entry.name for entry in Library(notify=_ignore_notice).list(incomplete, limit=MAX_COMPLETIONS).entries],
        incomplete,
    )


def complete_trashed(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from softprompt.library import Library

    return _completions(
        [
            entry.name
            for entry in Library(notify=_ignore_notice).list(incomplete, limit=MAX_COMPLETIONS, trashed=True).entries
        ],
        incomplete,
    )


def _completions(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    plain = [
        name for name in names if sanitize(name) == name
    ]  # names from foreign files may contain control characters
    return [CompletionItem(name) for name in plain if name.casefold().startswith(incomplete.casefold())]


def _ignore_notice(_notice: str) -> None:
    """Ignore a notice, because shell completion cannot show it."""


def complete_model(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from softprompt.encoders.catalog import LANGUAGE_MODELS, is_cached, list_models, mini_model

    names = [info.name for info in (list_models() if is_cached() else (mini_model(), *LANGUAGE_MODELS))]
    return [CompletionItem(name) for name in names if name.lower().startswith(incomplete.lower())]


model_option = click.option(
    "--model",
    default="mini",
    show_default=True,
    metavar="NAME",
    shell_complete=complete_model,
    help="Text encoder: mini, an open_clip MODEL/TAG (see `softprompt-tui models`), or local-dir:FOLDER.",
)
device_option = click.option(
    "--device",
    default="auto",
    show_default=True,
    metavar="DEVICE",
    help="auto, cpu, cuda, cuda:1 or mps. auto takes the first CUDA device, then mps, then the CPU.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
entry_argument = click.argument("name", shell_complete=complete_entry)
trashed_argument = click.argument("name", shell_complete=complete_trashed)


def library() -> Library:
    """Return the user's library. Its notices go to stderr."""
    from softprompt.library import Library

    return Library(notify=lambda notice: narrate(f"note: {notice}"))
