"""Print the result of a training run and exit, whether this process or the worker ran it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt.errors import without_stop
from softprompt_tui.cli.common import FAILED, INTERRUPTED, fail, library, narrate, print_json
from softprompt_tui.cli.report import entry_json, print_entry

if TYPE_CHECKING:
    from softprompt.library.entry import Entry


def print_result_and_exit(name: str, entry: Entry, failure: str, as_json: bool, asked_for: bool = False) -> None:
    """Print the saved entry, then exit with 1 if training failed or with 130 if it was interrupted.

    Args:
        name: the requested name.
        failure: why training failed, or "".
        asked_for: this command itself stopped the run, so an interruption counts as success.
    """
    if name and entry.prompt.name != name:
        narrate(f"note: the name {name} was taken in the meantime; saved as {entry.prompt.name}")
    for warning in entry.prompt.warnings:
        narrate(f"note: {warning}")
    path = library().path(entry.id, entry.revision)
    if as_json:
        print_json(entry_json(entry, path))
    else:
        print_entry(entry, path)
    if failure:
        fail(f"{without_stop(failure)}. The best result so far was saved as {entry.prompt.name}.", FAILED)
    if entry.prompt.stopped == "interrupted" and not asked_for:
        raise SystemExit(INTERRUPTED)
