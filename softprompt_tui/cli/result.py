"""How a training ends on the command line, wherever it ran."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt_tui.cli.common import FAILED, INTERRUPTED, fail, library, narrate, print_json
from softprompt_tui.cli.report import entry_json, print_entry

if TYPE_CHECKING:
    from softprompt.library.entry import Entry


def finish(name: str, entry: Entry, failure: str, as_json: bool, asked_for: bool = False) -> None:
    """Shows the saved `entry`, wished for under `name`; the program ends with 1 where it failed, with 130 where it was interrupted.

    `asked_for`: the interruption is just what the command was for.
    """
    if name and entry.prompt.name != name:
        narrate(f"note: {name} was taken meanwhile; saved as {entry.prompt.name}")
    for warning in entry.prompt.warnings:
        narrate(f"note: {warning}")
    path = library().path(entry.id, entry.revision)
    if as_json:
        print_json(entry_json(entry, path))
    else:
        print_entry(entry, path)
    if failure:
        fail(f"{failure}. The best until then was saved as {entry.prompt.name}", FAILED)
    if entry.prompt.stopped == "interrupted" and not asked_for:
        raise SystemExit(INTERRUPTED)
