"""`softprompt-tui rename`, `tag`, `note` and `duplicate`: changes to what is saved. Each is a new revision; none is ever overwritten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from softprompt_tui.cli.common import entry_argument, json_option, library, narrate, print_json
from softprompt_tui.cli.streams import MAX_INPUT_LENGTH, read_text

if TYPE_CHECKING:
    from softprompt.library.entry import Entry


def _done(entry: Entry, said: str, as_json: bool) -> None:
    from softprompt_tui.cli.report import entry_json

    if as_json:
        print_json(entry_json(entry, library().path(entry.id, entry.revision)))
    else:
        narrate(said)


@click.command()
@entry_argument
@click.argument("new")
@json_option
def rename(name: str, new: str, as_json: bool) -> None:
    """Give NAME the name NEW: letters of any script, digits, '-', '_' and spaces.

    \b
    Example:
      softprompt-tui rename serene-landscape-sunrise landscape
    """
    entry = library().rename(name, new)
    _done(entry, f"{name} is now {entry.prompt.name}", as_json)


@click.command()
@entry_argument
@click.argument("tags", nargs=-1)
@click.option("--remove", "-r", multiple=True, metavar="TAG", help="Take this tag away; may be given several times.")
@json_option
def tag(name: str, tags: tuple[str, ...], remove: tuple[str, ...], as_json: bool) -> None:
    """Add TAGS to NAME; `list --tag` finds them. Without TAGS and --remove, show those that it has.

    \b
    Examples:
      softprompt-tui tag landscape nature style:photo
      softprompt-tui tag landscape --remove nature
    """
    entry = library().tag(name, tags, remove) if tags or remove else library().open(name)
    if as_json or tags or remove:
        _done(entry, f"{entry.prompt.name}: {'  '.join(entry.tags) or 'no tags'}", as_json)
        return
    for one in entry.tags:
        click.echo(one if one.isprintable() else ascii(one))


@click.command()
@entry_argument
@click.argument("text", required=False)
@click.option("--clear", is_flag=True, help="Remove the note.")
@json_option
def note(name: str, text: str | None, clear: bool, as_json: bool) -> None:
    """Set the note of NAME to TEXT, or to what comes on stdin where TEXT is '-'. `list` searches notes too.

    \b
    Examples:
      softprompt-tui note landscape "too blue at night; good with mountains"
      softprompt-tui note landscape - < note.txt
      softprompt-tui note landscape --clear
    """
    if clear == (text is not None):
        raise click.UsageError("note takes either a text or --clear")
    if text == "-":
        text = read_text("note", MAX_INPUT_LENGTH)
    entry = library().annotate(name, text or "")
    _done(entry, f"{entry.prompt.name}: {'noted' if entry.note else 'no note'}", as_json)


@click.command()
@entry_argument
@click.argument("new", required=False)
@json_option
def duplicate(name: str, new: str | None, as_json: bool) -> None:
    """Save NAME a second time, as NEW, or with a number after its name.

    \b
    Example:
      softprompt-tui duplicate landscape "landscape warm"
    """
    entry = library().duplicate(name, new)
    _done(entry, f"{entry.prompt.name} is saved, with the id {entry.id}", as_json)
