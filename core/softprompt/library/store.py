"""The library: what is saved, changed, deleted and found again. Names never become paths."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from softprompt.errors import EntryChanged, EntryDamaged, EntryNotFound, LibraryError
from softprompt.library import bulk, trash
from softprompt.library.bulk import LibrarySnapshot
from softprompt.library.lookup import Lookup
from softprompt.library.names import check_name, check_note, check_tags, listed_tags, name_for, numbered, same
from softprompt.library.queries import EntrySummary
from softprompt.library.revisions import now

if TYPE_CHECKING:  # numpy takes 0.1 s to import, and listing does without
    from softprompt.library.backup import Archived, OnProgress
    from softprompt.library.entry import Entry
    from softprompt.library.verify import Checked
    from softprompt.prompts.results import HardReadout
    from softprompt.prompts.soft_prompt import SoftPrompt


class Library(Lookup):
    """The saved soft prompts under a folder, by default this user's. Any number of processes and threads may use it at once."""

    # saving and opening

    def save(self, prompt: SoftPrompt, id: str | None = None) -> Entry:
        """Saves a soft prompt durably as a new entry and returns it.

        It is named after its hard prompt where it has no name; a name that is taken gets a number, so that nothing trained is
        lost. With `id`, what was saved under that id before is returned as it is, even from the trash. Raises BadName, and HomeError
        where nothing can be written.
        """
        from softprompt.library.entry import Entry

        self.prepare()
        if id is not None and (saved := self.content(id)):
            return saved
        wished = check_name(prompt.name) if prompt.name else ""
        name = self.free_names(lambda taken: numbered(wished, taken) if wished else name_for(prompt.hard_prompt, taken))
        entry = Entry(id or secrets.token_hex(8), 1, prompt.named(name))
        try:
            self.revisions.write(entry)
        except FileExistsError:  # another thread or process saved it under that id just now
            saved = self.content(entry.id)
            if saved is None:
                raise EntryDamaged(f"{self.path(entry.id, 1)} was just saved, and cannot be read") from None
            return saved
        return entry

    def known(self) -> LibrarySnapshot:
        """What there is by id, for a batch: the folder is read once. Raises HomeError."""
        return LibrarySnapshot(self.revisions)

    def save_all(
        self, made: Sequence[Entry], known: LibrarySnapshot | None = None, failed: dict[str, LibraryError] | None = None
    ) -> dict[str, Entry]:
        """Saves new entries under the ids that they have, all of them or none; returns them as they are now, by id.

        What is there under an id already stays as it is (see `known`), so that doing it again after a crash adds what is missing; what is
        damaged is mended. A name that is taken gets a number. With `failed`, those that cannot be saved are put there, and the others
        are saved. Raises BadName, HomeError, LibraryError.
        """
        return bulk.save_all(self, made, known or self.known(), failed)

    def open(self, name: str) -> Entry:
        """The entry of this name or id, its every byte verified. Raises EntryNotFound, EntryDamaged."""
        found = self.find(name)
        entry = self.latest(found.id, found.revision)
        if entry is None:
            raise EntryNotFound(
                f"{found.name} ({found.id}) was deleted meanwhile: `softprompt-tui restore {found.id}` brings it back"
            )
        return entry

    # changing: each is a new revision

    def rename(self, name: str, new: str, revision: int | None = None) -> Entry:
        """Gives an entry another name.

        With `revision`, the one that the caller has seen, an entry whose name is no longer the one it had then is left as
        it is: unlike a note, a second name is worth no second entry. Raises EntryChanged then, BadName for a name that is
        taken, and as `_change` does.
        """
        new, found = check_name(new), self.find(name)
        seen = None if revision is None else self.at_revision(found.id, revision).prompt.name
        if same(new) != same(found.name):
            self.free_name(new)

        def change(entry: Entry) -> Entry:
            if seen is not None and entry.prompt.name not in (seen, new):
                raise EntryChanged(
                    f"{seen} was renamed to {entry.prompt.name} meanwhile, and keeps that name: rename it again"
                )
            return replace(entry, prompt=entry.prompt.named(new))

        return self._change(found, change, None)

    def tag(
        self,
        name: str,
        add: str | Collection[str] = (),
        remove: str | Collection[str] = (),
        revision: int | None = None,
    ) -> Entry:
        """Adds and removes tags. For `revision` and errors see `_change`."""
        added, removed = check_tags(add), {same(tag.strip()) for tag in listed_tags(remove)}

        def change(entry: Entry) -> Entry:
            kept = [tag for tag in entry.tags if same(tag) not in removed]
            return replace(entry, tags=check_tags([*kept, *added]))

        return self._change(self.find(name), change, revision)

    def annotate(self, name: str, note: str, revision: int | None = None) -> Entry:
        """Sets the note; "" removes it. For `revision` and errors see `_change`."""
        note = check_note(note)
        return self._change(self.find(name), lambda entry: replace(entry, note=note), revision)

    def harden(self, name: str, hard: HardReadout, revision: int | None = None) -> Entry:
        """Sets the hard readout of an entry. For `revision` and errors see `_change`."""
        return self._change(
            self.find(name), lambda entry: replace(entry, prompt=replace(entry.prompt, hard=hard)), revision
        )

    def assign(self, name: str, assigned: Callable[[SoftPrompt], SoftPrompt]) -> Entry:
        """Sets the model or the hard prompt of an entry as `assigned` says. Raises what that raises, and as `_change` does."""
        return self._change(self.find(name), lambda entry: replace(entry, prompt=assigned(entry.prompt)), None)

    def duplicate(self, name: str, new: str | None = None) -> Entry:
        """A second entry with everything of the first, under another name. Raises BadName, EntryNotFound, EntryDamaged, HomeError."""
        entry = self.open(name)
        return self._beside(entry, self.free_name(new) if new else self.numbered(entry.prompt.name))

    def _change(self, found: EntrySummary, change: Callable[[Entry], Entry], revision: int | None) -> Entry:
        """Writes what `change` makes of the entry as its next revision.

        Where another process was quicker, the change is made to what that one wrote; but where the caller says which `revision` he has seen,
        and there is a newer one, his is kept beside it, as a new entry of the same name. Raises EntryNotFound, EntryDamaged, HomeError.
        """
        number = found.revision
        while True:
            entry = self.latest(found.id, number)
            if entry is None:
                raise EntryNotFound(
                    f"{found.name} ({found.id}) was deleted meanwhile: `softprompt-tui restore {found.id}` brings it back"
                )
            if revision is not None and revision != entry.revision:
                seen = change(self.at_revision(found.id, revision))
                return self._beside(seen, seen.prompt.name)
            changed = change(entry)
            if _editable(changed) == _editable(entry):
                return entry
            changed = replace(changed, revision=entry.revision + 1, changed=now())
            try:
                self.revisions.write(changed)
            except FileExistsError:
                number = changed.revision
                continue
            if os.path.lexists(self.path(entry.id, entry.revision)):
                return changed
            # it was deleted and purged meanwhile, which freed the number that this one took: nothing late brings it back
            self.revisions.take_back(changed)

    def _beside(self, entry: Entry, name: str) -> Entry:
        made = replace(entry, id=secrets.token_hex(8), revision=1, changed=now(), prompt=entry.prompt.named(name))
        self.revisions.write(made)
        return made

    # all of it

    def check(self, on_progress: OnProgress | None = None) -> Checked:
        """Verifies every byte of every file. Raises HomeError."""
        from softprompt.library.verify import check

        return check(self.revisions, on_progress)

    def rebuild(self) -> int:
        """Makes the index anew; returns how many entries it holds, the trash included. Raises HomeError."""
        return self.index.rebuild()

    def back_up(self, path: Path, on_progress: OnProgress | None = None) -> Archived:
        """Writes everything into the new file `path`, verified. Raises ArchiveError."""
        from softprompt.library.backup import back_up

        return back_up(self.revisions, path, on_progress)

    def bring_back(self, path: Path, on_progress: OnProgress | None = None) -> Archived:
        """Adds what the backup `path` has and the library has not; what was deleted since is in the trash again. Raises ArchiveError."""
        from softprompt.library.backup import bring_back

        return bring_back(self.revisions, path, self.numbered, on_progress)

    # the trash

    def delete(self, name: str, revision: int | None = None) -> str:
        """Moves an entry to the trash, also one that is damaged, and returns its id.

        With `revision`, the one that the caller has seen, an entry of which there is a newer one stays. Raises EntryChanged
        then, EntryNotFound, HomeError.
        """
        return trash.delete(self, name, revision)

    def restore(self, name: str, revision: int | None = None) -> Entry:
        """Brings an entry back from the trash, or the last whole revision of one that is damaged. Its name is numbered if it was taken.

        With `revision`, only what has been in the trash since that revision. Raises EntryChanged otherwise, EntryNotFound,
        EntryDamaged where no whole revision is left, HomeError.
        """
        return trash.restore(self, name, revision)

    def purge(self, name: str | None = None) -> int:
        """Removes an entry in the trash for good, or all that are there; returns how many. Raises EntryNotFound, HomeError.

        The tombstone stays, so that no process that is late can bring it back.
        """
        return trash.purge(self, name)


def _editable(entry: Entry) -> tuple[object, ...]:
    """What a change may change."""
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
