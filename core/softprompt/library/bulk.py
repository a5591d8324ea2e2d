"""Save many entries at once: all of them or none. After a crash, saving again adds the missing entries."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from softprompt.errors import EntryDamaged, HomeError, LibraryError, command
from softprompt.library.names import check_name, check_tags, make_unique, name_key

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt.library.lookup import Lookup
    from softprompt.library.revisions import Revisions


class LibrarySnapshot:
    """The ids that the library had when the snapshot was taken. Entries are read on demand."""

    def __init__(self, revisions: Revisions) -> None:
        self._revisions = revisions
        self._numbers: dict[str, list[int]] = {}
        for name in revisions.scan():
            self._numbers.setdefault(name[:16], []).append(int(name.split(".")[1]))
        self._read: dict[str, tuple[Entry | None, str]] = {}

    def get(self, entry_id: str) -> tuple[Entry | None, str]:
        """Return the result of `read`, caching it."""
        if entry_id not in self._read:
            self._read[entry_id] = self.read(entry_id)
        return self._read[entry_id]

    def has(self, entry_id: str) -> bool:
        """Return whether any file has this id, even if it is only a tombstone. Reads no file."""
        return entry_id in self._numbers

    def next_number(self, entry_id: str) -> int:
        """Return the next free revision. A purged entry leaves its tombstone, so its numbers are not reused."""
        return max(self._numbers.get(entry_id, ()), default=0) + 1

    def read(self, entry_id: str) -> tuple[Entry | None, str]:
        """Return the newest intact revision that has vectors, and the state of the newest revision.

        The state is "saved", "trashed" or "damaged". If no revision has vectors, the entry is None and the state is
        "damaged" or "". Unlike `get`, this does not keep the entry in memory, which matters with thousands of entries.
        """
        from softprompt.library.entry import Tombstone

        state = ""
        for number in sorted(self._numbers.get(entry_id, ()), reverse=True):
            try:
                entry = self._revisions.read(entry_id, number)
            except EntryDamaged:
                state = state or "damaged"
                continue
            except FileNotFoundError:  # purged in the meantime
                continue
            if not isinstance(entry, Tombstone):
                return entry, state or "saved"
            state = state or "trashed"
        return (None, "damaged") if state == "damaged" else (None, "")  # only a tombstone: the entry was purged


def save_all(
    library: Lookup, entries: Sequence[Entry], snapshot: LibrarySnapshot, failed: dict[str, LibraryError] | None = None
) -> dict[str, Entry]:
    """Save new entries under their own ids, all of them or none. Return the saved entries by id.

    Entries that already exist are not changed, so saving again after a crash adds the missing entries. A damaged entry
    is repaired from its last intact revision, or else replaced by the new entry. Taken names get a number.

    Args:
        failed: collects the errors of entries that cannot be saved, by id, while all other entries are saved. If None,
            the first such error ends the call.

    Raises:
        BadName, HomeError, LibraryError: nothing was saved.
    """
    library.prepare()
    saved: dict[str, Entry] = {}
    new: dict[str, Entry] = {}
    for entry in entries:
        existing, state = snapshot.get(entry.id)
        if existing and state != "damaged":
            saved[entry.id] = existing
        elif entry.id not in new:
            new[entry.id] = existing or replace(entry, tags=check_tags(entry.tags))
    requested_names = [check_name(entry.prompt.name) for entry in new.values()]
    names = library.with_taken_names(lambda taken: _make_unique_names(requested_names, taken))
    written: list[Entry] = []
    try:
        for entry, name in zip(new.values(), names, strict=True):
            entry = replace(entry, revision=snapshot.next_number(entry.id), prompt=entry.prompt.named(name))
            try:
                library.revisions.write(entry)
            except HomeError:
                raise
            except LibraryError as error:  # only this entry is at fault
                if failed is None:
                    raise type(error)(f"{name}: {error}") from error
                failed[entry.id] = error
                continue
            written.append(entry)
            saved[entry.id] = entry
    except FileExistsError as error:
        notice = _remove_written(library, written)
        raise HomeError(f"another process is saving the same entries ({error.filename}). Try again{notice}.") from error
    except BaseException as error:  # including Ctrl-C
        if notice := _remove_written(library, written):
            error.args = (f"{error}{notice}",)
        raise
    return saved


def _remove_written(library: Lookup, written: Sequence[Entry]) -> str:
    """Remove the entries already written. Return a notice about any that could not be removed, or ""."""
    remaining = []
    for entry in written:
        # an entry that another process has changed in the meantime stays
        if library.revisions.newest(entry.id, entry.revision) == entry.revision:
            try:
                library.revisions.undo_write(entry)
            except HomeError:  # other entries may still be removable
                remaining.append(entry.id)
    delete = command(f"rm {' '.join(remaining)}", f"for id in {remaining}: library.delete(id)")
    return f". Some entries were already saved; delete them with {delete}" if remaining else ""


def _make_unique_names(names: Sequence[str], taken: Container[str]) -> list[str]:
    """Return the names, adding a number to each name that is taken or repeats an earlier one."""
    used: set[str] = set()
    unique_names = []
    for name in names:
        unique_names.append(make_unique(name, _Union(taken, used)))
        used.add(name_key(unique_names[-1]))
    return unique_names


class _Union:
    def __init__(self, first: Container[str], second: Container[str]) -> None:
        self.containers = first, second

    def __contains__(self, key: object) -> bool:
        return any(key in container for container in self.containers)
