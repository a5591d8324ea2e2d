"""`softprompt-tui rename`, `tag`, `note` and `duplicate`. Each change saves a new revision and keeps the old ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from softprompt_tui.cli.common import entry_argument, json_option, library, narrate, print_json
from softprompt_tui.cli.streams import MAX_INPUT_BYTES, read_text

if TYPE_CHECKING:
    from softprompt.library.entry import Entry


def _report_change(entry: Entry, message: str, as_json: bool) -> None:
    from softprompt_tui.cli.report import entry_json

    if as_json:
        print_json(entry_json(entry, library().path(entry.id, entry.revision)))
    else:
        narrate(message)


@click.command()
@entry_argument
@click.argument("new")
@json_option
def rename(name: str, new: str, as_json: bool) -> None:
    """Rename NAME to NEW. A name may contain letters of any script, digits, '-', '_' and spaces.

    \b
    Example:
      softprompt-tui rename serene-landscape-sunrise landscape
    """
    entry = library().rename(name, new)
    _report_change(entry, f"{name} is now {entry.prompt.name}", as_json)


@click.command()
@entry_argument
@click.argument("tags", nargs=-1)
@click.option("--remove", "-r", multiple=True, metavar="TAG", help="Remove this tag. Repeatable.")
@json_option
def tag(name: str, tags: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> None:
    """Add TAGS to NAME; `list --tag` finds them. Without TAGS and --remove, show its tags.

    \b
    Examples:
      softprompt-tui tag landscape nature style:photo
      softprompt-tui tag landscape --remove nature
    """
    entry = library().tag(name, tags, remove) if tags or remove else library().open(name)
    if as_json or tags or remove:
        _report_change(entry, f"{entry.prompt.name}: {'  '.join(entry.tags) or 'no tags'}", as_json)
        return
    for own_tag in entry.tags:
        click.echo(own_tag if own_tag.isprintable() else ascii(own_tag))


@click.command()
@entry_argument
@click.argument("text", required=False)
@click.option("--clear", is_flag=True, help="Remove the note.")
@json_option
def note(name: str, text: str | None, clear: bool, as_json: bool) -> None:
    """Set the note of NAME to TEXT. If TEXT is -, read standard input. `list` also searches notes.

    \b
    Examples:
      softprompt-tui note landscape "too blue at night; good with mountains"
      softprompt-tui note landscape - < note.txt
      softprompt-tui note landscape --clear
    """
    if clear == (text is not None):
        raise click.UsageError("give either a text or --clear")
    if text == "-":
        text = read_text("note", MAX_INPUT_BYTES)
    entry = library().annotate(name, text or "")
    _report_change(entry, f"{entry.prompt.name}: {'note saved' if entry.note else 'no note'}", as_json)


@click.command()
@entry_argument
@click.argument("new", required=False)
@json_option
def duplicate(name: str, new: str | None, as_json: bool) -> None:
    """Save a copy of NAME as NEW, or under its own name with a number.

    \b
    Example:
      softprompt-tui duplicate landscape "landscape warm"
    """
    entry = library().duplicate(name, new)
    _report_change(entry, f"saved {entry.prompt.name} with id {entry.id}", as_json)
