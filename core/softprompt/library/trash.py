"""The trash: a tombstone is the entry's next revision, so that deleting, restoring and editing at once are ordered as edits are."""

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
    """Moves an entry to the trash, also one that is damaged, and returns its id. For `revision` and errors see `Library.delete`."""
    from softprompt.library.entry import Tombstone

    entry_id, number = _found_or_damaged(library, name)
    while True:
        number = library.revisions.newest(entry_id, number)
        if _is_trashed(library, entry_id, number):
            return entry_id
        if revision not in (None, number):
            raise EntryChanged(
                f"{library.find(entry_id).name} was changed by another program meanwhile, and is not deleted: look again"
            )
        try:
            library.revisions.write(Tombstone(entry_id, number + 1, now()))
            return entry_id
        except FileExistsError:
            number += 1


def restore(library: Lookup, name: str, revision: int | None = None) -> Entry:
    """Brings an entry back from the trash, or the last whole revision of one that is damaged. Its name is numbered if it was taken.

    For `revision` and errors see `Library.restore`.
    """
    try:
        found = library.find(name, trashed=True)
        entry_id, number = found.id, found.revision
    except EntryNotFound:
        damaged = library.index.ask(lambda db: queries.damaged_heads(db, name))
        if len(damaged) != 1:
            raise
        ((entry_id, number, _),) = damaged
    while True:
        number = library.revisions.newest(entry_id, number)
        if revision not in (None, number):
            raise EntryChanged(
                f"{name} was restored, and perhaps deleted again, by another program meanwhile: it is as that one left it"
            )
        content = library.content(entry_id)
        if content is None:
            raise EntryDamaged(f"no whole revision of {entry_id} is left: restore it from a backup, or purge it")
        if content.revision == number:  # another process was quicker
            return content
        named = content.prompt.named(library.numbered(content.prompt.name))
        entry = replace(content, revision=number + 1, changed=now(), prompt=named)
        try:
            library.revisions.write(entry)
            return entry
        except FileExistsError:
            number += 1


def purge(library: Lookup, name: str | None = None) -> int:
    """Removes an entry in the trash for good, or all that are there; returns how many. Raises EntryNotFound, HomeError.

    The tombstone stays, so that no process that is late can bring it back.
    """
    doomed = library.list(trashed=True).entries if name is None else [library.find(name, trashed=True)]
    # the index says what is in the trash, but only the tombstone itself is proof enough to remove what is below it
    below = {
        entry.id: entry.revision
        for entry in doomed
        if library.revisions.newest(entry.id, entry.revision) == entry.revision
        and _is_trashed(library, entry.id, entry.revision)
    }
    library.revisions.remove(below)
    return len(below)


def _is_trashed(library: Lookup, entry_id: str, revision: int) -> bool:
    from softprompt.library.entry import Tombstone

    try:
        return isinstance(library.revisions.read(entry_id, revision), Tombstone)
    except (EntryDamaged, FileNotFoundError):
        return False


def _found_or_damaged(library: Lookup, name: str) -> tuple[str, int]:
    try:
        found = library.find(name)
        return found.id, found.revision
    except EntryDamaged:
        ((entry_id, number, _),) = library.index.ask(lambda db: queries.damaged_heads(db, name))
        return entry_id, number
