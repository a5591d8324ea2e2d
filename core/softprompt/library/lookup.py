"""Read the library: find entries by name, words or id, check names, and read revisions."""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from softprompt.arguments import checked
from softprompt.errors import (
    BadName,
    ConfigError,
    EntryDamaged,
    EntryNotFound,
    HomeError,
    SoftPromptError,
    command,
    shorten,
    without_stop,
)
from softprompt.library import queries
from softprompt.library.index import Index
from softprompt.library.names import as_tag_list, check_name, make_unique, name_key
from softprompt.library.queries import SORTS, EntryPage, EntryQuery, EntrySummary
from softprompt.library.revisions import Revisions
from softprompt.prompts.visible_text import format_count, quote
from softprompt.system.files import PARTIAL_SUFFIX, retry_after_freeing_cache
from softprompt.system.filesystems import is_open_to_others
from softprompt.system.paths import data_folder, display_path, expand_path, how_to_move, make_folder

if TYPE_CHECKING:  # imports numpy, which takes 0.1 s and is not needed for listing
    from pandas import DataFrame

    from softprompt.library.entry import Entry

Answer = TypeVar("Answer")
MAX_FOLDER_LENGTH = 80  # characters of the folder in a repr
log = logging.getLogger(__name__)


class Lookup:
    """The part of `Library` that reads entries.

    Every `name` parameter accepts an entry's name, its id, or at least the first four characters of the id.

    Args:
        folder: the parent of the library's folder; by default this user's data folder. `~` is expanded.
        notify: receives a message if the index cannot be used.
    """

    @checked(renamed={"say": "notify"})
    def __init__(self, folder: Path | str | None = None, notify: Callable[[str], None] = log.warning) -> None:
        self.folder = (expand_path(folder) if folder else data_folder()) / "library"
        self.entries = self.folder / "entries"
        self.revisions = Revisions(self.entries)
        self.index = Index(self.revisions, notify)
        self.notify = notify
        self._has_warned = False

    def prepare(self) -> None:
        """Check that the library can be written. Call this before training, so that the result is not lost.

        Saved files are private. If the file system does not store permissions and other users can read it, this method
        only warns, because whoever mounted it chose that.

        Raises:
            HomeError: the library cannot be written.
        """
        make_folder(self.entries)
        probe = self.entries / f".{secrets.token_hex(8)}{PARTIAL_SUFFIX}"
        try:
            retry_after_freeing_cache(self.entries, lambda: probe.touch(mode=0o600, exist_ok=False))
            if is_open_to_others(probe) and not self._has_warned:
                self._has_warned = True
                self.notify(
                    f"other users may be able to read {self.folder}, because its file system does not store permissions"
                )
        except OSError as error:
            raise HomeError(
                f"cannot write to {self.entries}: {error.strerror}. Fix this, or {how_to_move(self.entries)}."
            ) from error
        finally:
            with suppress(OSError):  # `scan` removes it later
                probe.unlink(missing_ok=True)

    # as a container

    def __len__(self) -> int:
        """Return the number of entries, without the trash and damaged entries."""
        return self.index.run_query(queries.count_entries)

    def __bool__(self) -> bool:
        """A library is true even if it is empty, so that `library or Library()` does not replace it."""
        return True

    def __contains__(self, name: object) -> bool:
        """Return whether an entry has this name or full id. Shared names and damaged entries count too."""
        return isinstance(name, str) and self.index.run_query(lambda db: queries.has_entry(db, name))

    def __iter__(self) -> Iterator[Entry]:
        """Open the entries one at a time, newest first. Damaged entries are left out, with a message for each."""
        for entry_id, revision in self.index.run_query(queries.list_ids):
            try:
                entry = self.latest(entry_id, revision)
            except EntryDamaged as error:
                self.notify(str(error))
                continue
            if entry is not None:  # None: moved to the trash in the meantime
                yield entry

    def __repr__(self) -> str:
        return f"Library({quote(display_path(self.folder.parent), MAX_FOLDER_LENGTH)}, {self._describe()})"

    def _repr_html_(self) -> str:
        from softprompt.prompts.html import show_figures  # listing needs no HTML

        try:
            page = self.list(limit=queries.MAX_SHOWN)
        except SoftPromptError as error:
            return show_figures(repr(self), {"error": str(error)})
        return queries.show_entries(repr(self), page)

    def _describe(self) -> str:
        try:
            return format_count(len(self) if self.entries.is_dir() else 0, "soft prompt")
        except (SoftPromptError, OSError):
            return "cannot be read"

    @checked
    def to_dataframe(self) -> DataFrame:
        """Return a pandas table with one row per entry, newest first, and the fields of EntrySummary as columns.

        Raises:
            MissingPackage: pandas is not installed.
            HomeError: the library cannot be read.
        """
        return self.list().to_dataframe()

    def path(self, entry_id: str, revision: int) -> Path:
        return self.revisions.path(entry_id, revision)

    # entries

    @checked
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
        """Return a page of the entries, or of the trash.

        Args:
            words: words or beginnings of words. All must be in an entry's name, hard prompt, readout, tags or note.
            sort: "created", "changed", "name", "model", "tokens", "similarity", "composed", "steps" or "seconds". Dates
                and numbers are in descending order.
            reverse: reverse that order.
            trashed: list the trash instead of the library.
            locate: id of an entry whose position in the list is also returned.

        Raises:
            ConfigError, HomeError.
        """
        if sort not in SORTS:
            raise ConfigError(f"entries cannot be sorted by {sort[:40]!r}. Use {', '.join(SORTS)}.")
        for label, number in (("limit", limit), ("offset", offset)):
            if number is not None and number < 0:
                raise ConfigError(f"{label} is {number}; it must be at least 0")
        query = EntryQuery(words, tuple(as_tag_list(tags)), model, trashed)
        return self.index.run_query(
            lambda db: queries.list_entries(db, self.path, query, sort, reverse, limit, offset, locate)
        )

    @checked
    def tags(self) -> dict[str, int]:
        """Return how many entries have each tag, the most frequent first. Raises HomeError."""
        return self.index.run_query(queries.count_tags)

    @checked
    def suggest(self, text: str, limit: int = 10) -> Sequence[EntrySummary]:
        """Return entries for a half-typed text: names that start with it, names that contain it, then entries with
        such words in their prompt, readout, tags or note. Newer entries come first.

        Raises:
            HomeError.
        """
        return self.index.run_query(lambda db: queries.suggest_entries(db, self.path, text, limit))

    @checked
    def find(self, name: str, trashed: bool = False) -> EntrySummary:
        """Find an entry by name or id, in the library or in the trash.

        Raises:
            EntryNotFound: no entry or several entries match. The message lists close names or the ids.
            EntryDamaged: the id belongs to a damaged entry.
        """
        matches = self.index.run_query(lambda db: queries.find_entries(db, self.path, name, trashed))
        if len(matches) == 1:
            return matches[0]
        label = shorten(repr(name), 80)
        if matches:
            raise EntryNotFound(
                f"several soft prompts are named {label}: {', '.join(entry.id for entry in matches)}. Use an id."
            )
        damaged = self.index.run_query(lambda db: queries.find_damaged(db, name))
        if len(damaged) == 1 and not trashed:
            ((entry_id, _, message),) = damaged
            restore = command(f"restore {entry_id}", f"library.restore({entry_id!r})")
            raise EntryDamaged(f"{without_stop(message)}. Run {restore} to restore the last intact revision, if any.")
        if trashed:
            show_all = command("list --trash", "library.list(trashed=True)")
            raise EntryNotFound(f"no soft prompt in the trash is named {label}. {show_all} shows all.")
        if self.index.run_query(lambda db: queries.find_entries(db, self.path, name, True)):
            restore = command(f"restore {name}", f"library.restore({name!r})")
            raise EntryNotFound(f"{name} is in the trash. Run {restore} to restore it.")
        names = self.index.run_query(lambda db: queries.find_close_names(db, name))
        raise EntryNotFound(
            f"no soft prompt is named {label}. "
            + (f"Close: {', '.join(names)}." if names else f"{command('list', 'library.list()')} shows all.")
        )

    @checked
    def check_new_name(self, name: str) -> str:
        """Return the name, stripped. Raises BadName if it is invalid or taken. Call this before training."""
        name = check_name(name)
        if self.index.run_query(lambda db: queries.is_name_taken(db, name_key(name))):
            raise BadName(f"the library already has a soft prompt named {name}. Choose another name.")
        return name

    @checked
    def unique_name(self, name: str) -> str:
        """Return the name, or the first of name-2, name-3, … that is free."""
        return self.with_taken_names(lambda taken: make_unique(name, taken))

    def with_taken_names(self, choose: Callable[[Container[str]], Answer]) -> Answer:
        """Call `choose` with the `name_key` of every name in use, and return its result."""
        return self.index.run_query(lambda db: choose(_TakenNames(db)))

    # revisions

    def latest(self, entry_id: str, known: int) -> Entry | None:
        """Return the current revision, or None if the entry is in the trash. `known`: a revision that has existed."""
        from softprompt.library.entry import Tombstone

        while True:
            number = self.revisions.newest(entry_id, known)
            try:
                entry = self.revisions.read(entry_id, number)
                return None if isinstance(entry, Tombstone) else entry
            except FileNotFoundError:  # purged in the meantime, or deleted by hand
                numbers = self.revisions.revision_numbers(entry_id)
                if not numbers:
                    return None
                known = numbers[-1]

    def open_revision(self, entry_id: str, revision: int) -> Entry:
        from softprompt.library.entry import Tombstone

        with suppress(FileNotFoundError):
            entry = self.revisions.read(entry_id, revision)
            if not isinstance(entry, Tombstone):
                return entry
        raise EntryNotFound(f"{entry_id} has no revision {revision}")

    def newest_intact(self, entry_id: str) -> Entry | None:
        """Return the newest intact revision with a soft prompt, or None if there is none."""
        for number in reversed(self.revisions.revision_numbers(entry_id)):
            with suppress(EntryDamaged, EntryNotFound):
                return self.open_revision(entry_id, number)
        return None


class _TakenNames:
    """The `name_key` of every name in use."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __contains__(self, key: object) -> bool:
        return queries.is_name_taken(self.db, str(key))
