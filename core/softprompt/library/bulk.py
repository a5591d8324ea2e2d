"""Saving many entries as one: all of them or none, and after a crash the rest of them."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from softprompt.errors import EntryDamaged, HomeError, LibraryError
from softprompt.library.names import check_name, check_tags, numbered, same

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.library.lookup import Lookup
    from softprompt.library.revisions import Revisions


class LibrarySnapshot:
    """What a library has, by id, as of when this was made; each entry is read once, when it is asked for."""

    def __init__(self, revisions: Revisions) -> None:
        self._revisions = revisions
        self._numbers: dict[str, list[int]] = {}
        for name in revisions.scan():
            self._numbers.setdefault(name[:16], []).append(int(name.split(".")[1]))
        self._read: dict[str, tuple[Entry | None, str]] = {}

    def get(self, entry_id: str) -> tuple[Entry | None, str]:
        """(the newest whole revision with vectors, "saved", "trashed" or "damaged" for what is newest), or (None, "")."""
        if entry_id not in self._read:
            self._read[entry_id] = self.look(entry_id)
        return self._read[entry_id]

    def has(self, entry_id: str) -> bool:
        """Whether there is anything of that id, a tombstone alone too; reads nothing."""
        return entry_id in self._numbers

    def next_number(self, entry_id: str) -> int:
        """The revision that comes next. What was purged leaves its tombstone, and with it the numbers up to that."""
        return max(self._numbers.get(entry_id, ()), default=0) + 1

    def look(self, entry_id: str) -> tuple[Entry | None, str]:
        """As `get`, but the entry is not kept: for who goes through thousands."""
        from softprompt.library.entry import Tombstone

        state = ""
        for number in sorted(self._numbers.get(entry_id, ()), reverse=True):
            try:
                found = self._revisions.read(entry_id, number)
            except EntryDamaged:
                state = state or "damaged"
                continue
            except FileNotFoundError:  # purged meanwhile
                continue
            if not isinstance(found, Tombstone):
                return found, state or "saved"
            state = state or "trashed"
        return (None, "damaged") if state == "damaged" else (None, "")  # a tombstone alone: what was there is purged


def save_all(
    library: Lookup, made: Sequence[Entry], known: LibrarySnapshot, failed: dict[str, LibraryError] | None = None
) -> dict[str, Entry]:
    """Saves new entries under the ids that they have, all of them or none; returns them as they are now, by id.

    A crash can leave some of them, and doing it again adds the others: what is there under an id already stays as it is. What is damaged
    there is mended: with its last whole revision, or else with the new entry. With `failed`, an entry that cannot be saved is put there,
    and the others are saved. Raises BadName, HomeError, LibraryError.
    """
    library.prepare()
    saved: dict[str, Entry] = {}
    new: dict[str, Entry] = {}
    for entry in made:
        there, state = known.get(entry.id)
        if there and state != "damaged":
            saved[entry.id] = there
        elif entry.id not in new:
            new[entry.id] = there or replace(entry, tags=check_tags(entry.tags))
    wished = [check_name(entry.prompt.name) for entry in new.values()]
    names = library.free_names(lambda taken: _free_names(wished, taken))
    written: list[Entry] = []
    try:
        for entry, name in zip(new.values(), names, strict=True):
            entry = replace(entry, revision=known.next_number(entry.id), prompt=entry.prompt.named(name))
            try:
                library.revisions.write(entry)
            except HomeError:
                raise
            except LibraryError as error:  # this one's own fault
                if failed is None:
                    raise type(error)(f"{name}: {error}") from error
                failed[entry.id] = error
                continue
            written.append(entry)
            saved[entry.id] = entry
    except FileExistsError as error:
        left = _take_back(library, written)
        raise HomeError(f"another process is saving the same ({error.filename}): do it again{left}") from error
    except BaseException as error:  # also Ctrl-C leaves none of them; it goes on as it came
        if left := _take_back(library, written):
            error.args = (f"{error}{left}",)
        raise
    return saved


def _take_back(library: Lookup, written: Sequence[Entry]) -> str:
    """Removes what was written; returns what is to be said of those that could not be removed, or ""."""
    left = []
    for entry in written:
        if (
            library.revisions.newest(entry.id, entry.revision) == entry.revision
        ):  # else somebody has changed it meanwhile
            try:
                library.revisions.take_back(entry)
            except HomeError:  # the others can perhaps be
                left.append(entry.id)
    return f". What was saved before could not be taken back: `softprompt-tui rm {' '.join(left)}`" if left else ""


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
