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
    """Move soft prompts to the trash; `restore` brings them back. For one that is damaged give its id.

    \b
    Example:
      softprompt-tui rm landscape
    """
    _each(
        names,
        lambda name: f"{name} is in the trash: `softprompt-tui restore {library().delete(name)[:8]}` brings it back",
    )


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_trashed)
@json_option
def restore(names: tuple[str, ...], as_json: bool) -> None:
    """Bring soft prompts back from the trash, or the last whole revision of one that is damaged. A name that was taken meanwhile gets a number.

    \b
    Examples:
      softprompt-tui restore landscape
      softprompt-tui restore 15b4
    """
    made = []

    def one(name: str) -> str:
        entry = library().restore(name)
        made.append({"id": entry.id, "name": entry.prompt.name, "revision": entry.revision})
        return f"{entry.prompt.name} is back"

    _each(names, one, said=not as_json)
    if as_json:
        print_json(made)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME...]", shell_complete=complete_trashed)
@click.option("--all", "everything", is_flag=True, help="All that is in the trash.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def purge(names: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Remove soft prompts in the trash for good. Nothing brings them back but a backup.

    \b
    Examples:
      softprompt-tui purge landscape
      softprompt-tui purge --all --yes
    """
    if everything == bool(names):
        raise click.UsageError(
            "purge takes either names or --all: `softprompt-tui list --trash` shows what is in the trash"
        )
    count = library().list(trashed=True, limit=1).total if everything else len(names)
    if not count:
        narrate("The trash is empty.")
        return
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError("purge asks before it removes for good, and there is nobody to ask: give --yes")
        click.confirm(
            f"Remove {f'{count:,} soft prompts' if count > 1 else '1 soft prompt'} for good?", abort=True, err=True
        )
    if everything:
        narrate(f"{library().purge():,} removed for good")
    else:
        _each(names, lambda name: f"{name}: {library().purge(name)} removed for good")


def _each(names: tuple[str, ...], do: Callable[[str], str], said: bool = True) -> None:
    """Does it for each name, also after one that fails; then ends with 2 if any did."""
    failed = False
    for name in names:
        try:
            words = do(name)
            if said:
                narrate(words)
        except SoftPromptError as error:
            if len(names) == 1 or not is_bad_input(error):
                raise
            narrate(f"softprompt-tui: {error}")
            failed = True
    if failed:
        raise SystemExit(BAD_INPUT)
