"""The trash. Deleting an entry writes a tombstone as its next revision, so deletes and edits have one order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from softprompt.errors import EntryChanged, EntryDamaged, EntryNotFound
from softprompt.library import queries
from softprompt.library.revisions import now

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.library.lookup import Lookup


def delete(library: Lookup, name: str, revision: int | None = None) -> str:
    """Implement `Library.delete`."""
    from softprompt.library.entry import Tombstone

    entry_id, number = _find_or_damaged(library, name)
    if revision is not None and revision > library.revisions.newest(entry_id, number):
        raise EntryNotFound(f"{name} has no revision {revision}, so it was not deleted. Use the revision that you saw.")
    while True:
        number = library.revisions.newest(entry_id, number)
        if _is_trashed(library, entry_id, number):
            return entry_id
        if revision not in (None, number):
            raise EntryChanged(
                f"another program changed {library.find(entry_id).name}, so it was not deleted. Check the changes "
                "first."
            )
        try:
            library.revisions.write(Tombstone(entry_id, number + 1, now()))
            return entry_id
        except FileExistsError:
            number += 1


def restore(library: Lookup, name: str, revision: int | None = None) -> Entry:
    """Implement `Library.restore`."""
    try:
        summary = library.find(name, trashed=True)
        entry_id, number = summary.id, summary.revision
    except EntryNotFound:
        damaged = library.index.run_query(lambda db: queries.find_damaged(db, name))
        if len(damaged) != 1:
            raise
        ((entry_id, number, _),) = damaged
    while True:
        number = library.revisions.newest(entry_id, number)
        if revision not in (None, number):
            raise EntryChanged(
                f"another program has restored {name} and may have deleted it again. Nothing was changed."
            )
        intact = library.newest_intact(entry_id)
        if intact is None:
            raise EntryDamaged(f"{entry_id} has no intact revision. Restore it from a backup, or purge it.")
        if intact.revision == number:  # another process has restored it
            return intact
        renamed = intact.prompt.named(library.unique_name(intact.prompt.name))
        entry = replace(intact, revision=number + 1, changed=now(), prompt=renamed)
        try:
            library.revisions.write(entry)
            return entry
        except FileExistsError:
            number += 1


def purge(library: Lookup, name: str | None = None) -> int:
    """Implement `Library.purge`."""
    summaries = library.list(trashed=True).entries if name is None else [library.find(name, trashed=True)]
    # the index can be out of date, so remove revisions only below a tombstone that really exists
    below = {
        entry.id: entry.revision
        for entry in summaries
        if library.revisions.newest(entry.id, entry.revision) == entry.revision
        and _is_trashed(library, entry.id, entry.revision)
    }
    library.revisions.remove_below(below)
    return len(below)


def _is_trashed(library: Lookup, entry_id: str, revision: int) -> bool:
    from softprompt.library.entry import Tombstone

    try:
        return isinstance(library.revisions.read(entry_id, revision), Tombstone)
    except (EntryDamaged, FileNotFoundError):
        return False


def _find_or_damaged(library: Lookup, name: str) -> tuple[str, int]:
    try:
        summary = library.find(name)
        return summary.id, summary.revision
    except EntryDamaged:
        ((entry_id, number, _),) = library.index.run_query(lambda db: queries.find_damaged(db, name))
        return entry_id, number
