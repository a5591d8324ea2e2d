"""The library: what is saved, changed, deleted and found again. Names never become paths."""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
from collections.abc import Callable, Collection, Container, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from softprompt.errors import BadName, ConfigError, EntryChanged, EntryDamaged, EntryNotFound, HomeError, LibraryError
from softprompt.library import bulk, queries, trash
from softprompt.library.bulk import Known
from softprompt.library.index import Index
from softprompt.library.names import check_name, check_note, check_tags, listed_tags, name_for, numbered, same
from softprompt.library.queries import SORTS, Listed, Listing, Wanted
from softprompt.library.revisions import Revisions, now
from softprompt.system.files import PARTIAL, with_room
from softprompt.system.filesystems import open_to_others
from softprompt.system.paths import VARIABLE, data_folder, make_folder

if TYPE_CHECKING:  # numpy takes 0.1 s to import, and listing does without
    from softprompt.library.backup import Archived, Progress
    from softprompt.library.entry import Entry
    from softprompt.library.verify import Checked
    from softprompt.prompts.results import HardReadout
    from softprompt.prompts.soft_prompt import SoftPrompt

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


class Library:
    """The saved soft prompts under `folder`, by default this user's. Any number of processes and threads may use it at once.

    An entry is asked for by its name, its id, or the first four letters of the id or more. `say` is told when the index cannot be used.
    """

    def __init__(self, folder: Path | None = None, say: Callable[[str], None] = log.warning) -> None:
        self.folder = (folder or data_folder()) / "library"
        self.entries = self.folder / "entries"
        self.revisions = Revisions(self.entries)
        self.index = Index(self.revisions, say)
        self.say = say
        self._said_open = False

    # saving and opening

    def prepare(self) -> None:
        """Makes sure that something can be saved; raises HomeError. Asked before a training, so that none is lost after it.

        What is saved is for its user alone. Where the file system keeps no modes and its mount lets others read, that is
        the choice of who mounted it and chose it: it is said, and nothing is refused.
        """
        make_folder(self.entries)
        probe = self.entries / f".{secrets.token_hex(8)}{PARTIAL}"
        try:
            with_room(self.entries, lambda: probe.touch(mode=0o600, exist_ok=False))
            if open_to_others(probe) and not self._said_open:
                self._said_open = True
                self.say(f"other users may read what is saved in {self.folder}: its file system keeps no modes")
        except OSError as error:
            raise HomeError(
                f"{self.entries} cannot be written to ({error.strerror}): free it, or set {VARIABLE} to another folder"
            ) from error
        finally:
            with suppress(OSError):  # else it is swept one day
                probe.unlink(missing_ok=True)

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

    def known(self) -> Known:
        """What there is by id, for a batch: the folder is read once. Raises HomeError."""
        return Known(self.revisions)

    def save_all(
        self, made: Sequence[Entry], known: Known | None = None, failed: dict[str, LibraryError] | None = None
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
        entry = self._latest(found.id, found.revision)
        if entry is None:
            raise EntryNotFound(
                f"{found.name} ({found.id}) was deleted meanwhile: `softprompt-tui restore {found.id}` brings it back"
            )
        return entry

    def path(self, entry_id: str, revision: int) -> Path:
        return self.revisions.path(entry_id, revision)

    # finding

    def list(
        self,
        words: str = "",
        *,
        tags: str | Collection[str] = (),
        model: str = "",
        sort: str = "created",
        reverse: bool = False,
        limit: int | None = None,
        offset: int = 0,
        trashed: bool = False,
        locate: str = "",
    ) -> Listing:
        """The entries, or those in the trash: with all of `words` in name, hard prompt, readout, tags or note, each perhaps only begun.

        `sort` is one of SORTS; dates and figures come with the highest first. `locate` is an id whose place is wanted too. Raises
        ConfigError, HomeError.
        """
        if sort not in SORTS:
            raise ConfigError(f"entries cannot be sorted by {sort[:40]!r}: {', '.join(SORTS)} are possible")
        wanted = Wanted(words, tuple(listed_tags(tags)), model, trashed)
        return self.index.ask(lambda db: queries.listing(db, self.path, wanted, sort, reverse, limit, offset, locate))

    def find(self, name: str, trashed: bool = False) -> Listed:
        """The entry of this name or id, or the one in the trash; raises EntryNotFound with close matches."""
        matches = self.index.ask(lambda db: queries.matches(db, self.path, name, trashed))
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise EntryNotFound(f"{name!r} is the name of several: {', '.join(one.id for one in matches)}. Give an id")
        damaged = self.index.ask(lambda db: queries.damaged_heads(db, name))
        if len(damaged) == 1 and not trashed:
            ((entry_id, _, message),) = damaged
            raise EntryDamaged(
                f"{message}. `softprompt-tui restore {entry_id}` brings back its last whole revision, if there is one"
            )
        if trashed:
            raise EntryNotFound(f"no soft prompt in the trash is named {name!r}. `softprompt-tui list --trash` shows all")
        if self.index.ask(lambda db: queries.matches(db, self.path, name, True)):
            raise EntryNotFound(f"{name} is in the trash: `softprompt-tui restore {name}` brings it back")
        names = self.index.ask(lambda db: queries.close_names(db, name))
        raise EntryNotFound(
            f"no soft prompt is named {name!r}. " + (f"Close: {', '.join(names)}" if names else "`softprompt-tui list` shows all")
        )

    def free_name(self, name: str) -> str:
        """The name, tidied; raises BadName where it cannot be given or is taken. Asked before a training."""
        name = check_name(name)
        if self.index.ask(lambda db: queries.is_taken(db, same(name))):
            raise BadName(f"the library has a soft prompt named {name} already: choose another name")
        return name

    def numbered(self, name: str) -> str:
        """The name, or the first of name-2, name-3, … that is free."""
        return self.free_names(lambda taken: numbered(name, taken))

    def free_names(self, choose: Callable[[Container[str]], Answer]) -> Answer:
        """What `choose` makes of the names in use, in the form that `same` gives."""
        return self.index.ask(lambda db: choose(_Taken(db)))

    # changing: each is a new revision

    def rename(self, name: str, new: str, revision: int | None = None) -> Entry:
        """Gives an entry another name.

        With `revision`, the one that the caller has seen, an entry whose name is no longer the one it had then is left as
        it is: unlike a note, a second name is worth no second entry. Raises EntryChanged then, BadName for a name that is
        taken, and as `_change` does.
        """
        new, found = check_name(new), self.find(name)
        seen = None if revision is None else self._at(found.id, revision).prompt.name
        if same(new) != same(found.name):
            self.free_name(new)

        def change(entry: Entry) -> Entry:
            if seen is not None and entry.prompt.name not in (seen, new):
                raise EntryChanged(f"{seen} was renamed to {entry.prompt.name} meanwhile, and keeps that name: rename it again")
            return replace(entry, prompt=entry.prompt.named(new))

        return self._change(found, change, None)

    def tag(
        self, name: str, add: str | Collection[str] = (), remove: str | Collection[str] = (), revision: int | None = None
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
        return self._change(self.find(name), lambda entry: replace(entry, prompt=replace(entry.prompt, hard=hard)), revision)

    def assign(self, name: str, assigned: Callable[[SoftPrompt], SoftPrompt]) -> Entry:
        """Sets the model or the hard prompt of an entry as `assigned` says. Raises what that raises, and as `_change` does."""
        return self._change(self.find(name), lambda entry: replace(entry, prompt=assigned(entry.prompt)), None)

    def duplicate(self, name: str, new: str | None = None) -> Entry:
        """A second entry with everything of the first, under another name. Raises BadName, EntryNotFound, EntryDamaged, HomeError."""
        entry = self.open(name)
        return self._beside(entry, self.free_name(new) if new else self.numbered(entry.prompt.name))

    def _change(self, found: Listed, change: Callable[[Entry], Entry], revision: int | None) -> Entry:
        """Writes what `change` makes of the entry as its next revision.

        Where another process was quicker, the change is made to what that one wrote; but where the caller says which `revision` he has seen,
        and there is a newer one, his is kept beside it, as a new entry of the same name. Raises EntryNotFound, EntryDamaged, HomeError.
        """
        number = found.revision
        while True:
            entry = self._latest(found.id, number)
            if entry is None:
                raise EntryNotFound(
                    f"{found.name} ({found.id}) was deleted meanwhile: `softprompt-tui restore {found.id}` brings it back"
                )
            if revision is not None and revision != entry.revision:
                seen = change(self._at(found.id, revision))
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

    def check(self, on_progress: Progress | None = None) -> Checked:
        """Verifies every byte of every file. Raises HomeError."""
        from softprompt.library.verify import check

        return check(self.revisions, on_progress)

    def rebuild(self) -> int:
        """Makes the index anew; returns how many entries it holds, the trash included. Raises HomeError."""
        return self.index.rebuild()

    def back_up(self, path: Path, on_progress: Progress | None = None) -> Archived:
        """Writes everything into the new file `path`, verified. Raises ArchiveError."""
        from softprompt.library.backup import back_up

        return back_up(self.revisions, path, on_progress)

    def bring_back(self, path: Path, on_progress: Progress | None = None) -> Archived:
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

    # revisions

    def _latest(self, entry_id: str, known: int) -> Entry | None:
        """The entry as it is now; None where it is in the trash."""
        from softprompt.library.entry import Tombstone

        while True:
            number = self.revisions.newest(entry_id, known)
            try:
                found = self.revisions.read(entry_id, number)
                return None if isinstance(found, Tombstone) else found
            except FileNotFoundError:  # purged meanwhile, or all of it removed by hand
                numbers = self.revisions.numbers(entry_id)
                if not numbers:
                    return None
                known = numbers[-1]

    def _at(self, entry_id: str, revision: int) -> Entry:
        from softprompt.library.entry import Tombstone

        with suppress(FileNotFoundError):
            found = self.revisions.read(entry_id, revision)
            if not isinstance(found, Tombstone):
                return found
        raise EntryNotFound(f"{entry_id} has no revision {revision}")

    def content(self, entry_id: str) -> Entry | None:
        """The newest revision of an id that is a whole soft prompt; None where there is none."""
        for number in reversed(self.revisions.numbers(entry_id)):
            with suppress(EntryDamaged, EntryNotFound):
                return self._at(entry_id, number)
        return None


def _editable(entry: Entry) -> tuple[object, ...]:
    """What a change may change."""
    prompt = entry.prompt
    return prompt.name, prompt.model_fingerprint, prompt.hard_prompt, prompt.similarity, prompt.hard, entry.tags, entry.note


class _Taken:
    """The names in use, in the form that `same` gives."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __contains__(self, key: object) -> bool:
        return queries.is_taken(self.db, str(key))
