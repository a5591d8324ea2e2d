"""Finding in the library: entries by name, words or id, names that are free, and an entry's content and revisions."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable, Collection, Container
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from softprompt.errors import BadName, ConfigError, EntryDamaged, EntryNotFound, HomeError
from softprompt.library import queries
from softprompt.library.index import Index
from softprompt.library.names import check_name, listed_tags, numbered, same
from softprompt.library.queries import SORTS, EntryPage, EntryQuery, EntrySummary
from softprompt.library.revisions import Revisions
from softprompt.system.files import PARTIAL, retry_without_reserve
from softprompt.system.filesystems import open_to_others
from softprompt.system.paths import VARIABLE, data_folder, make_folder

if TYPE_CHECKING:  # numpy takes 0.1 s to import, and listing does without
    from softprompt.library.entry import Entry

Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


class Lookup:
    """The entries under `folder`, by default this user's, as they are found. `Library` adds saving and changing.

    An entry is asked for by its name, its id, or the first four letters of the id or more. `say` is told when the index cannot be used.
    """

    def __init__(self, folder: Path | None = None, say: Callable[[str], None] = log.warning) -> None:
        self.folder = (folder or data_folder()) / "library"
        self.entries = self.folder / "entries"
        self.revisions = Revisions(self.entries)
        self.index = Index(self.revisions, say)
        self.say = say
        self._said_open = False

    def prepare(self) -> None:
        """Makes sure that something can be saved; raises HomeError. Asked before a training, so that none is lost after it.

        What is saved is for its user alone. Where the file system keeps no modes and its mount lets others read, that is
        the choice of who mounted it and chose it: it is said, and nothing is refused.
        """
        make_folder(self.entries)
        probe = self.entries / f".{secrets.token_hex(8)}{PARTIAL}"
        try:
            retry_without_reserve(self.entries, lambda: probe.touch(mode=0o600, exist_ok=False))
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
    ) -> EntryPage:
        """The entries, or those in the trash: with all of `words` in name, hard prompt, readout, tags or note, each perhaps only begun.

        `sort` is one of SORTS; dates and figures come with the highest first. `locate` is an id whose place is wanted too. Raises
        ConfigError, HomeError.
        """
        if sort not in SORTS:
            raise ConfigError(f"entries cannot be sorted by {sort[:40]!r}: {', '.join(SORTS)} are possible")
        wanted = EntryQuery(words, tuple(listed_tags(tags)), model, trashed)
        return self.index.ask(lambda db: queries.listing(db, self.path, wanted, sort, reverse, limit, offset, locate))

    def find(self, name: str, trashed: bool = False) -> EntrySummary:
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
            raise EntryNotFound(
                f"no soft prompt in the trash is named {name!r}. `softprompt-tui list --trash` shows all"
            )
        if self.index.ask(lambda db: queries.matches(db, self.path, name, True)):
            raise EntryNotFound(f"{name} is in the trash: `softprompt-tui restore {name}` brings it back")
        names = self.index.ask(lambda db: queries.close_names(db, name))
        raise EntryNotFound(
            f"no soft prompt is named {name!r}. "
            + (f"Close: {', '.join(names)}" if names else "`softprompt-tui list` shows all")
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

    # revisions

    def latest(self, entry_id: str, known: int) -> Entry | None:
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

    def at_revision(self, entry_id: str, revision: int) -> Entry:
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
                return self.at_revision(entry_id, number)
        return None


class _Taken:
    """The names in use, in the form that `same` gives."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __contains__(self, key: object) -> bool:
        return queries.is_taken(self.db, str(key))
