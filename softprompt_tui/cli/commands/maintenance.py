"""`softprompt-tui library`: check, rebuild, back up and restore the whole library."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import click

from softprompt.errors import EntryDamaged
from softprompt_tui.cli.common import FAILED, json_option, narrate, print_json, stderr_console
from softprompt_tui.cli.common import library as open_library
from softprompt_tui.rendering.sanitize import sanitize


@click.group("library")
def library() -> None:
    """Check, back up and restore the whole library.

    \b
    Examples:
      softprompt-tui library check
      softprompt-tui library backup ~/softprompts.zip
    """


@library.command()
@json_option
def check(as_json: bool) -> None:
    """Verify every byte of every file. The exit code is 1 if a file is damaged.

    \b
    Examples:
      softprompt-tui library check
      softprompt-tui library check --json
    """
    with _bar("checking") as progress:
        result = open_library().check(progress)
    if as_json:
        damaged = [str(error) for error in result.damaged]
        print_json(
            {
                "files": result.files,
                "bytes": result.bytes,
                "damaged": damaged,
                "strangers": result.unknown_files,
                "unfinished": result.unfinished,
            }
        )
    else:
        for error in result.damaged:
            narrate(f"{error}")
        for name in result.unknown_files:
            narrate(f"note: {name} is not part of the library and was left alone")
        click.echo(
            f"{result.files:,} files, {result.bytes:,} bytes: "
            f"{f'{len(result.damaged):,} damaged' if result.damaged else 'no damage'}"
        )
        if result.damaged:
            narrate(
                "Run `restore ID` for the last good revision, `library restore-backup` to take it from a backup, or "
                "`rm ID` to remove the entry."
            )
    if result.damaged:
        raise SystemExit(FAILED)


@library.command()
def rebuild() -> None:
    """Rebuild the search index from the entries. The index only speeds up lists; no data is lost without it.

    \b
    Example:
      softprompt-tui library rebuild
    """
    started_at = time.monotonic()
    narrate("reading all entries")
    count = open_library().rebuild()
    click.echo(f"{count:,} entries in {time.monotonic() - started_at:.1f} s")


@library.command()
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def backup(file: Path, as_json: bool) -> None:
    """Write the library and its trash to a new zip FILE and verify it. Damaged files are left out (exit code 1).

    \b
    Example:
      softprompt-tui library backup softprompts.zip
    """
    with _bar("backing up") as progress:
        result = open_library().back_up(file.absolute(), progress)
    _report_damaged(result.damaged)
    if as_json:
        print_json(
            {"file": str(file.absolute()), "files": result.files, "damaged": [str(error) for error in result.damaged]}
        )
    else:
        click.echo(sanitize(f"{result.files:,} files in {file.absolute()}, all verified"))
    if result.damaged:
        raise SystemExit(FAILED)


@library.command("restore-backup")
@click.argument("file", type=click.Path(path_type=Path))
@json_option
def restore_backup(file: Path, as_json: bool) -> None:
    """Add the entries of the backup FILE that the library lacks. Verifies the whole file first; overwrites nothing.

    Entries deleted since the backup are in the trash afterwards.

    \b
    Example:
      softprompt-tui library restore-backup softprompts.zip
    """
    with _bar("restoring") as progress:
        result = open_library().restore_backup(file.absolute(), progress)
    if as_json:
        print_json({"added": result.files, "present": result.present, "beside": result.new_ids})
        return
    for entry_id in result.new_ids:
        narrate(
            "note: an entry in the backup differs from the library's; the backup's version was saved with id "
            f"{entry_id}"
        )
    click.echo(f"{result.files:,} files added; {result.present:,} were already here")


def _report_damaged(damaged: list[EntryDamaged]) -> None:
    for error in damaged:
        narrate(f"left out: {error}")


def _bar(label: str) -> AbstractContextManager[Any]:
    """Return a progress bar as a context manager. Its value is a callback (done, total), or None without a terminal."""
    return _Bar(label) if sys.stderr.isatty() else nullcontext(None)


class _Bar:
    def __init__(self, label: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self.bar = Progress(*columns, console=stderr_console(), transient=True)
        self.task = self.bar.add_task(label, total=None)

    def __enter__(self) -> Any:
        self.bar.start()
        return lambda done, total: self.bar.update(self.task, completed=done, total=total)

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
