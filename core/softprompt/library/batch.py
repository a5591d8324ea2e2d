"""Saving many entries as one: all of them or none, and after a crash the rest of them."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
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
    numbers = _numbers(library, {entry.id for entry in made})
    saved = {entry_id: there for entry_id, (there, _) in known(library, numbers).items()}
    new = {entry.id: replace(entry, tags=check_tags(entry.tags)) for entry in reversed(made) if entry.id not in saved}
    fresh = list(reversed(new.values()))
    wished = [check_name(entry.prompt.name) for entry in fresh]
    names = library.free_names(lambda taken: _free_names(wished, taken))
    written: list[Entry] = []
    try:
        for entry, name in zip(fresh, names, strict=True):
            # what was purged leaves its tombstone, and with it the numbers up to that
            number = max(numbers.get(entry.id, ()), default=0) + 1
            saved[entry.id] = replace(entry, revision=number, prompt=entry.prompt.named(name))
            library.revisions.write(saved[entry.id])
            written.append(saved[entry.id])
    except FileExistsError as error:
        _take_back(library, written)
        raise HomeError(f"another process is saving the same ({error.filename}): do it again") from error
    except BaseException:  # also Ctrl-C leaves none of them; it goes on as it came
        _take_back(library, written)
        raise
    return [saved[entry.id] for entry in made]


def known(library: Library, ids: Collection[str]) -> dict[str, tuple[Entry, bool]]:
    """(what was saved under an id, whether it is in the trash) of those under which something is. Raises EntryDamaged for what cannot be read."""
    from softprompt.library.entry import Tombstone

    found: dict[str, tuple[Entry, bool]] = {}
    for entry_id, numbers in _numbers(library, ids).items():
        head = library.revisions.read(entry_id, numbers[-1])
        content = library.content(entry_id) if isinstance(head, Tombstone) else head
        if content:
            found[entry_id] = content, isinstance(head, Tombstone)
    return found


def _numbers(library: Library, ids: Collection[str]) -> dict[str, list[int]]:
    """The revisions of each id that there is, ascending; the folder is read once."""
    numbers: dict[str, list[int]] = {}
    for name in library.revisions.scan():
        if name[:16] in ids:
            numbers.setdefault(name[:16], []).append(int(name.split(".")[1]))
    return {entry_id: sorted(revisions) for entry_id, revisions in numbers.items()}


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
