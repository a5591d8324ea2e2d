"""Saving many entries as one: all of them or none, and after a crash the rest of them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from softprompt.errors import HomeError
from softprompt.library.names import check_name, check_tags, numbered, same

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.library.store import Library


def save_all(library: Library, made: Sequence[Entry]) -> list[Entry]:
    """Saves new entries under the ids that they have, all of them or none; returns them as they are now, in the same order.

    A crash can leave some of them, and doing it again adds the others: what is there under an id already stays as it is. Raises BadName,
    HomeError, LibraryError, EntryDamaged.
    """
    library.prepare()
    wished = [check_name(entry.prompt.name) for entry in made]
    names = library.free_names(lambda taken: _free_names(wished, taken))
    saved: dict[str, Entry] = {}
    written: list[Entry] = []
    try:
        for entry, name in zip(made, names, strict=True):
            if entry.id in saved:
                continue
            if there := known(library, entry.id):
                saved[entry.id] = there[0]
                continue
            # what was purged leaves its tombstone, and with it the numbers up to that
            number = max(library.revisions.numbers(entry.id), default=0) + 1
            new = replace(entry, revision=number, tags=check_tags(entry.tags), prompt=entry.prompt.named(name))
            library.revisions.write(new)
            written.append(new)
            saved[entry.id] = new
    except FileExistsError as error:
        _take_back(library, written)
        raise HomeError(f"another process is saving the same ({error.filename}): do it again") from error
    except BaseException:  # also Ctrl-C leaves none of them; it goes on as it came
        _take_back(library, written)
        raise
    return [saved[entry.id] for entry in made]


def known(library: Library, entry_id: str) -> tuple[Entry, bool] | None:
    """(what was saved under an id, whether it is in the trash), None where nothing is. Raises EntryDamaged for what cannot be read."""
    from softprompt.library.entry import Tombstone

    numbers = library.revisions.numbers(entry_id)
    if not numbers:
        return None
    head = library.revisions.read(entry_id, numbers[-1])
    if not isinstance(head, Tombstone):
        return head, False
    entry = library.content(entry_id)
    return (entry, True) if entry else None


def _take_back(library: Library, written: Sequence[Entry]) -> None:
    for entry in written:
        if library.revisions.newest(entry.id, entry.revision) == entry.revision:  # else somebody has changed it meanwhile
            library.revisions.take_back(entry)


def _free_names(wished: Sequence[str], taken: Container[str]) -> list[str]:
    """Each name, or the first with a number that is neither taken nor given to one before it."""
    given: set[str] = set()
    names = []
    for name in wished:
        names.append(numbered(name, _Both(taken, given)))
        given.add(same(names[-1]))
    return names


class _Both:
    """What is in one or the other."""

    def __init__(self, one: Container[str], other: Container[str]) -> None:
        self.parts = one, other

    def __contains__(self, key: object) -> bool:
        return any(key in part for part in self.parts)
