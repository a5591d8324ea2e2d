"""`softprompt-tui rm`, `restore` and `purge`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import click

from softprompt.errors import SoftPromptError, is_bad_input
from softprompt_tui.cli.common import (
    BAD_INPUT,
    complete_entry,
    complete_trashed,
    json_option,
    library,
    narrate,
    print_json,
)


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_entry)
def rm(names: tuple[str, ...]) -> None:
    """Move soft prompts to the trash; `restore` brings them back. Name a damaged one by its id.

    \b
    Example:
      softprompt-tui rm landscape
    """
    _for_each(
        names,
        lambda name: (
            f"{name} is in the trash. To restore it, run `softprompt-tui restore {library().delete(name)[:8]}`."
        ),
    )


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_trashed)
@json_option
def restore(names: tuple[str, ...], as_json: bool) -> None:
    """Restore soft prompts from the trash, or the last good revision of damaged ones.

    If another soft prompt has taken the name, the restored one gets a number.

    \b
    Examples:
      softprompt-tui restore landscape
      softprompt-tui restore 15b4
    """
    restored = []

    def restore_entry(name: str) -> str:
        entry = library().restore(name)
        restored.append({"id": entry.id, "name": entry.prompt.name, "revision": entry.revision})
        return f"restored {entry.prompt.name}"

    _for_each(names, restore_entry, report=not as_json)
    if as_json:
        print_json(restored)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_trashed)
@click.option("--all", "everything", is_flag=True, help="Delete everything in the trash.")
@click.option("--yes", "-y", is_flag=True, help="Skip the confirmation prompt.")
def purge(names: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Delete soft prompts in the trash for good. Only a backup can bring them back.

    \b
    Examples:
      softprompt-tui purge landscape
      softprompt-tui purge --all --yes
    """
    if everything == bool(names):
        raise click.UsageError("give either names or --all. `softprompt-tui list --trash` shows the trash.")
    count = library().list(trashed=True, limit=1).total if everything else len(names)
    if not count:
        narrate("The trash is empty.")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "purge needs confirmation, but standard input is not a terminal. Pass --yes to confirm."
            )
        click.confirm(
            f"Delete {f'{count:,} soft prompts' if count > 1 else '1 soft prompt'} for good?", abort=True, err=True
        )
    if everything:
        narrate(f"deleted {library().purge():,} for good")
    else:
        _for_each(names, lambda name: f"{name}: deleted {library().purge(name)} for good")


def _for_each(names: tuple[str, ...], action: Callable[[str], str], report: bool = True) -> None:
    """Run an action for every name, even after one fails. Exits with 2 if any failed."""
    failed = False
    for name in names:
        try:
            message = action(name)
            if report:
                narrate(message)
        except SoftPromptError as error:
            if len(names) == 1 or not is_bad_input(error):
                raise
            narrate(f"softprompt-tui: {error}")
            failed = True
    if failed:
        raise SystemExit(BAD_INPUT)
