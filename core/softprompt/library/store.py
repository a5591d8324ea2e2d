"""The library of soft prompts: save, change, delete and restore entries. Names never become paths."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.argument_types import describe
from softprompt.arguments import checked
from softprompt.errors import ArgumentError, EntryChanged, EntryDamaged, EntryNotFound, LibraryError, command, shorten
from softprompt.library import bulk, trash
from softprompt.library.bulk import LibrarySnapshot
from softprompt.library.lookup import Lookup
from softprompt.library.names import (
    as_tag_list,
    check_name,
    check_note,
    check_tags,
    make_unique,
    name_from_prompt,
    name_key,
)
from softprompt.library.queries import EntrySummary
from softprompt.library.revisions import ENTRY_ID, now

if TYPE_CHECKING:  # imports numpy, which takes 0.1 s and is not needed for listing
    from softprompt.library.backup import BackupReport, OnProgress
    from softprompt.library.entry import Entry
    from softprompt.library.verify import CheckReport
    from softprompt.prompts.results import HardReadout
    from softprompt.prompts.soft_prompt import SoftPrompt


class Library(Lookup):
    """The saved soft prompts in a folder. Any number of processes and threads can use the library at once.

    `library["fox"]` opens an entry, `"fox" in library` looks for one, `len(library)` counts them, and
    `for entry in library` opens one after another, newest first. Every `name` argument accepts an entry's name, its id,
    or at least the first four characters of its id.

    Methods that change an entry write a new revision of it. If another program changes the entry at the same time, both
    changes are kept. Those methods take the `revision` that the caller has seen: if there is a newer one, the change is
    applied to the old revision and saved as a new entry with the same name. Without `revision`, it is applied to the
    newest. They raise EntryNotFound or EntryDamaged if the entry does not exist or cannot be read.

    Methods raise HomeError if the library's folder cannot be read or written.

    Args:
        folder: the parent of the library's folder; by default this user's data folder. `~` is expanded.
        notify: receives a message if the index cannot be used.
    """

    # save and open

    @checked
    def save(self, prompt: SoftPrompt | Entry, *, name: str = "", id: str | None = None) -> Entry:
        """Save a soft prompt durably as a new entry.

        A prompt without a name is named after its hard prompt. A taken name gets a number, so that no result is lost.

        Args:
            name: the name to save it under, in place of its own.
            id: if this id already has an entry, even in the trash, nothing is saved and that entry is returned.

        Raises:
            BadName, EntryRefused, HomeError.
        """
        from softprompt.library.entry import Entry

        prompt = prompt.prompt if isinstance(prompt, Entry) else prompt
        if id is not None and not ENTRY_ID.fullmatch(id):
            raise ArgumentError(f"id is {shorten(repr(id))}; expected 16 digits and letters from a to f")
        self.prepare()
        if id is not None and (saved := self.newest_intact(id)):
            return saved
        requested = check_name(name or prompt.name) if name or prompt.name else ""
        unique = self.with_taken_names(
            lambda taken: make_unique(requested, taken) if requested else name_from_prompt(prompt.hard_prompt, taken)
        )
        entry = Entry(id or secrets.token_hex(8), 1, prompt.named(unique))
        try:
            self.revisions.write(entry)
        except FileExistsError:  # another thread or process has just saved this id
            saved = self.newest_intact(entry.id)
            if saved is None:
                raise EntryDamaged(f"cannot read {self.path(entry.id, 1)}, which was just saved") from None
            return saved
        return entry

    def snapshot(self) -> LibrarySnapshot:
        """Return a snapshot of all ids, for saving many entries. Reads the folder once. Raises HomeError."""
        return LibrarySnapshot(self.revisions)

    def save_all(
        self,
        entries: Sequence[Entry],
        snapshot: LibrarySnapshot | None = None,
        failed: dict[str, LibraryError] | None = None,
    ) -> dict[str, Entry]:
        """Save new entries under their own ids, all of them or none. See `bulk.save_all`."""
        return bulk.save_all(self, entries, snapshot or self.snapshot(), failed)

    @checked
    def open(self, name: str) -> Entry:
        """Open an entry and verify every byte. Raises EntryNotFound or EntryDamaged."""
        summary = self.find(name)
        entry = self.latest(summary.id, summary.revision)
        if entry is None:
            raise _deleted(summary)
        return entry

    @checked
    def __getitem__(self, name: str) -> Entry:
        """Open an entry. Raises EntryNotFound, which is a KeyError, or EntryDamaged."""
        return self.open(name)

    # changes; each writes a new revision

    @checked
    def rename(self, name: str, new: str, revision: int | None = None) -> Entry:
        """Rename an entry.

        Args:
            revision: the revision that the caller has seen. If the entry has been renamed since, it keeps that name:
                unlike a conflicting note, a conflicting name does not justify a second entry.

        Raises:
            EntryChanged: the entry has been renamed since `revision`.
            BadName: the name is invalid or taken.
            EntryNotFound, EntryDamaged, HomeError.
        """
        new, summary = check_name(new), self.find(name)
        seen = None if revision is None else self.open_revision(summary.id, revision).prompt.name
        if name_key(new) != name_key(summary.name):
            self.check_new_name(new)

        def change(entry: Entry) -> Entry:
            if seen is not None and entry.prompt.name not in (seen, new):
                raise EntryChanged(
                    f"another program has renamed {seen} to {entry.prompt.name}, so it was not renamed again. Check it "
                    "first."
                )
            return replace(entry, prompt=entry.prompt.named(new))

        return self._change(summary, change, None)

    @checked
    def tag(
        self,
        name: str,
        add: str | Collection[str] = (),
        remove: str | Collection[str] = (),
        revision: int | None = None,
    ) -> Entry:
        """Add and remove tags. Tags that differ only in case are the same tag."""
        added, removed = check_tags(add), {name_key(tag.strip()) for tag in as_tag_list(remove)}

        def change(entry: Entry) -> Entry:
            remaining = [tag for tag in entry.tags if name_key(tag) not in removed]
            return replace(entry, tags=check_tags([*remaining, *added]))

        return self._change(self.find(name), change, revision)

    @checked
    def annotate(self, name: str, note: str, revision: int | None = None) -> Entry:
        """Set the note; "" removes it."""
        note = check_note(note)
        return self._change(self.find(name), lambda entry: replace(entry, note=note), revision)

    @checked
    def set_hard_readout(self, name: str, hard: HardReadout, revision: int | None = None) -> Entry:
        """Set the hard readout, a result of `find_hard`."""
        return self._change(
            self.find(name), lambda entry: replace(entry, prompt=replace(entry.prompt, hard=hard)), revision
        )

    @checked
    def assign(self, name: str, change: Callable[[SoftPrompt], SoftPrompt]) -> Entry:
        """Replace the soft prompt by `change(prompt)`, which sets its model or hard prompt with `softprompt.assign`.

        Example:
            library.assign("my style", lambda prompt: softprompt.assign(prompt, encoder))
        """

        def change_entry(entry: Entry) -> Entry:
            from softprompt.prompts.soft_prompt import SoftPrompt

            changed = change(entry.prompt)
            if not isinstance(changed, SoftPrompt):
                raise ArgumentError(f"change returned {describe(changed)}; expected a SoftPrompt")
            return replace(entry, prompt=changed)

        return self._change(self.find(name), change_entry, None)

    @checked
    def duplicate(self, name: str, new: str | None = None) -> Entry:
        """Copy an entry under a new name. Raises BadName, EntryNotFound, EntryDamaged or HomeError."""
        entry = self.open(name)
        return self._save_copy(entry, self.check_new_name(new) if new else self.unique_name(entry.prompt.name))

    def _change(self, summary: EntrySummary, change: Callable[[Entry], Entry], revision: int | None) -> Entry:
        """Write the changed entry as its next revision.

        If another process writes that revision first, the change is applied to the newer one.

        Args:
            revision: the revision that the caller has seen. If there is a newer one, the change is applied to the old
                revision and saved as a new entry with the same name, so that neither change is lost.

        Raises:
            EntryNotFound, EntryDamaged, HomeError.
        """
        number = summary.revision
        while True:
            entry = self.latest(summary.id, number)
            if entry is None:
                raise _deleted(summary)
            if revision is not None and revision != entry.revision:
                seen = change(self.open_revision(summary.id, revision))
                return self._save_copy(seen, seen.prompt.name)
            changed = change(entry)
            if _editable_fields(changed) == _editable_fields(entry):
                return entry
            changed = replace(changed, revision=entry.revision + 1, changed=now())
            try:
                self.revisions.write(changed)
            except FileExistsError:
                number = changed.revision
                continue
            if os.path.lexists(self.path(entry.id, entry.revision)):
                return changed
            # the entry was purged in the meantime, which freed this number: a late change must not bring it back
            self.revisions.undo_write(changed)

    def _save_copy(self, entry: Entry, name: str) -> Entry:
        copy = replace(entry, id=secrets.token_hex(8), revision=1, changed=now(), prompt=entry.prompt.named(name))
        self.revisions.write(copy)
        return copy

    # the whole library

    @checked
    def check(self, on_progress: OnProgress | None = None) -> CheckReport:
        """Verify every byte of every file. Raises HomeError."""
        from softprompt.library.verify import check

        return check(self.revisions, on_progress)

    @checked
    def rebuild(self) -> int:
        """Rebuild the index. Return the number of entries, including the trash. Raises HomeError."""
        return self.index.rebuild()

    @checked
    def back_up(self, path: Path | str, on_progress: OnProgress | None = None) -> BackupReport:
        """Write all entries, including the trash, to the new file `path` and verify it. Raises ArchiveError."""
        from softprompt.library.backup import back_up

        return back_up(self.revisions, Path(path), on_progress)

    @checked
    def restore_backup(self, path: Path | str, on_progress: OnProgress | None = None) -> BackupReport:
        """Add missing entries from the backup `path`. Entries in the trash stay there. Raises ArchiveError."""
        from softprompt.library.backup import restore_backup

        return restore_backup(self.revisions, Path(path), self.unique_name, on_progress)

    # the trash

    @checked
    def delete(self, name: str, revision: int | None = None) -> str:
        """Move an entry, intact or damaged, to the trash. Return its id.

        Args:
            revision: the revision that the caller has seen. If there is a newer one, nothing is deleted.

        Raises:
            EntryChanged: the entry has a newer revision.
            EntryNotFound, HomeError.
        """
        return trash.delete(self, name, revision)

    @checked
    def restore(self, name: str, revision: int | None = None) -> Entry:
        """Restore an entry from the trash, or the last intact revision of a damaged entry. A taken name gets a number.

        Args:
            revision: the newest revision that the caller has seen. If there is a newer one, nothing is restored.

        Raises:
            EntryChanged: the entry has a newer revision.
            EntryDamaged: no intact revision is left.
            EntryNotFound, HomeError.
        """
        return trash.restore(self, name, revision)

    @checked
    def purge(self, name: str | None = None) -> int:
        """Permanently delete an entry in the trash, or everything in it. Return the number of deleted entries.

        The tombstones stay, so that a late write by another process cannot bring an entry back. Raises EntryNotFound
        or HomeError.
        """
        return trash.purge(self, name)


def _deleted(summary: EntrySummary) -> EntryNotFound:
    restore = command(f"restore {summary.id}", f"library.restore({summary.id!r})")
    return EntryNotFound(f"{summary.name} ({summary.id}) has been deleted. Run {restore} to restore it.")


def _editable_fields(entry: Entry) -> tuple[object, ...]:
    """Return the fields that an edit can change."""
    prompt = entry.prompt
    return (
        prompt.name,
        prompt.model_fingerprint,
        prompt.hard_prompt,
        prompt.similarity,
        prompt.hard,
        entry.tags,
        entry.note,
    )
