"""`softprompt-tui library`: the library as a whole."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from softprompt.errors import EntryDamaged
from softprompt_tui.cli.common import FAILED, json_option, narrate, print_json, stderr_console
from softprompt_tui.cli.common import library as the_library
from softprompt_tui.rendering.sanitize import sanitize


@click.group("library")
def library() -> None:
    """Check, back up and bring back the whole library.

    \b
    Examples:
      softprompt-tui library check
      softprompt-tui library backup ~/softprompts.zip
    """


@library.command()
@json_option
def check(as_json: bool) -> None:
    """Read every file and verify every byte. Exit code 0: all is whole; 1: what is damaged is named.

    \b
    Examples:
      softprompt-tui library check
      softprompt-tui library check --json
    """
    with _bar("checking") as progress:
        done = the_library().check(progress)
    if as_json:
        damaged = [str(error) for error in done.damaged]
        print_json(
            {
                "files": done.files,
                "bytes": done.bytes,
                "damaged": damaged,
                "strangers": done.strangers,
                "unfinished": done.unfinished,
            }
        )
    else:
        for error in done.damaged:
            narrate(f"{error}")
        for name in done.strangers:
            narrate(f"note: {name} does not belong here, and is left alone")
        click.echo(
            f"{done.files:,} files with {done.bytes:,} bytes: {f'{len(done.damaged):,} damaged' if done.damaged else 'all whole'}"
        )
        if done.damaged:
            narrate(
                "`restore ID` brings back the last whole revision, `library restore-backup` what a backup has, `rm ID` puts it away"
            )
    if done.damaged:
        raise SystemExit(FAILED)


@library.command()
def rebuild() -> None:
    """Make the index anew from the entries. It is only there for speed: nothing is lost with it.

    \b
    Example:
      softprompt-tui library rebuild
    """
    began = time.monotonic()
    narrate("reading all entries")
    count = the_library().rebuild()
    click.echo(f"{count:,} entries in {time.monotonic() - began:.1f} s")


@library.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def backup(file: Path, as_json: bool) -> None:
    """Write everything, the trash included, into the new zip FILE, and verify it. Exit code 1: something damaged was left out.

    \b
    Example:
      softprompt-tui library backup softprompts.zip
    """
    with _bar("backing up") as progress:
        done = the_library().back_up(file.absolute(), progress)
    _say_damaged(done.damaged)
    if as_json:
        print_json(
            {"file": str(file.absolute()), "files": done.files, "damaged": [str(error) for error in done.damaged]}
        )
    else:
        click.echo(sanitize(f"{done.files:,} files in {file.absolute()}, each verified"))
    if done.damaged:
        raise SystemExit(FAILED)


@library.command("restore-backup")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def restore_backup(file: Path, as_json: bool) -> None:
    """Add what the backup FILE has and the library has not. It is verified as a whole first; nothing here is overwritten.

    What was deleted since the backup lies in the trash afterwards.

    \b
    Example:
      softprompt-tui library restore-backup softprompts.zip
    """
    with _bar("bringing back") as progress:
        done = the_library().bring_back(file.absolute(), progress)
    if as_json:
        print_json({"added": done.files, "present": done.present, "beside": done.beside})
        return
    for entry_id in done.beside:
        narrate(
            f"note: an entry had been changed both here and there; the backup's is saved beside it, with the id {entry_id}"
        )
    click.echo(f"{done.files:,} files added; {done.present:,} were here already")


def _say_damaged(damaged: list[EntryDamaged]) -> None:
    for error in damaged:
        narrate(f"left out: {error}")


def _bar(what: str) -> AbstractContextManager[Any]:
    """A context that gives a callback for (done, of all) and draws it, on a terminal."""
    return _Bar(what) if sys.stderr.isatty() else nullcontext(None)


class _Bar:
    def __init__(self, what: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=stderr_console(), transient=True)
        self.task = self.bar.add_task(what, total=None)

    def __enter__(self) -> Any:
        self.bar.start()
        return lambda done, of_all: self.bar.update(self.task, completed=done, total=of_all)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
