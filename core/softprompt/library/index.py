"""The index: all entry headers in a SQLite database with full-text search. It is only a cache of the entry files.

The index is in the cache folder, or on local storage if several hosts share that folder. A broken index is replaced by
a new one beside it. If another program locks the index, or it cannot be written, queries run on an index in memory and
the user gets a notice. The index leaves the last 8 MB of its disk free, and a write that runs out of space can delete
it (softprompt.system.paths.free_cache).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import sqlite3
import stat
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from softprompt.errors import EntryDamaged, HomeError
from softprompt.library.names import name_key
from softprompt.library.revisions import Revisions
from softprompt.library.search_terms import split_words
from softprompt.system.files import NO_SPACE_ERRNOS
from softprompt.system.filesystems import is_shared, set_mode
from softprompt.system.paths import (
    INDEX_NAME,
    cache_folder,
    find_privacy_problem,
    free_cache,
    local_cache_folder,
    make_folder,
)

FORMAT = 1
APPLICATION_ID = 0x736F6674  # "soft" in ASCII: marks the database as an index of this program
# how long a query waits for another program's lock, and how long later queries use memory instead of waiting
LOCK_TIMEOUT_SECONDS, LOCK_RETRY_SECONDS = 2.0, 30.0
RESERVE_BYTES = 8 << 20  # disk space that the index leaves free for data that cannot be rebuilt
READER_THREADS, READ_CHUNK = 16, 2000  # the index is written after every READ_CHUNK entries
# once a folder's mtime is this old, every later change gives the folder a different mtime
SETTLE_SECONDS, SHARED_SETTLE_SECONDS = 0.2, 5.0

Answer = TypeVar("Answer")

_TEXTS = ("name", "hard_prompt", "model", "readout_text", "stopped", "created", "changed", "note")
_NUMBERS = ("tokens", "similarity", "readout_similarity", "steps", "seconds")
COLUMNS = ("id", "revision", "trashed", *_TEXTS, *_NUMBERS, "composed", "tags")
INDEXED_COLUMNS = ("created", "touched", "same", "model", "tokens", "similarity", "composed", "steps", "seconds")
_SCHEMA = f"""
CREATE TABLE file (name TEXT PRIMARY KEY, inode INTEGER) WITHOUT ROWID;
CREATE TABLE head (key INTEGER PRIMARY KEY, {", ".join(COLUMNS)}, same TEXT, touched TEXT);
CREATE UNIQUE INDEX head_id ON head (id);
CREATE INDEX head_name ON head (same);
{
    "".join(f"CREATE INDEX head_by_{column} ON head (trashed, {column}, id);" + chr(10) for column in INDEXED_COLUMNS)
}CREATE TABLE damaged (id TEXT PRIMARY KEY, revision INTEGER, message TEXT);
CREATE TABLE scanned (changed_at INTEGER);
INSERT INTO scanned VALUES (-1);
CREATE VIRTUAL TABLE word USING fts5 (text, tokenize = 'ascii', detail = 'none', prefix = '1 2 3');
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""


class IndexRow(NamedTuple):
    """A row of the index and its search terms."""

    values: tuple[Any, ...]
    terms: str


class DamagedEntry(NamedTuple):
    """An entry that cannot be read, and the reason."""

    id: str
    revision: int
    message: str


class ForeignIndexError(Exception):
    """The file at the index's path is not an intact index of this program."""


class DiskNearlyFull(Exception):
    """Less than RESERVE_BYTES of disk space is left."""


class Index:
    """The index of the entries in `revisions`. Calls `notify` with a message if queries cannot use it."""

    def __init__(self, revisions: Revisions, notify: Callable[[str], None]) -> None:
        self.revisions = revisions
        self.notify = notify
        self._stem = f"library-{hashlib.sha256(os.fsencode(os.path.realpath(revisions.folder))).hexdigest()[:16]}"
        self._is_shared = is_shared(revisions.folder)
        self._notices: set[str] = set()
        self._locked_until = 0.0  # time.monotonic(); until then queries do not wait for the lock

    def run_query(self, query: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Run a query on an up-to-date index and return its result. Raises HomeError if the entries cannot be read."""
        if time.monotonic() < self._locked_until:
            return self._query_in_memory(query)
        try:
            return self._query_file(self._current_path(), query)
        except DiskNearlyFull as error:
            self._notify_once(f"{error}, so recent changes are read from the entry files. Free some space.")
        except (sqlite3.Error, ForeignIndexError, OSError) as error:
            if _is_full(error):
                self._drop()
            elif _is_locked(error):
                self._locked_until = time.monotonic() + LOCK_RETRY_SECONDS
                self.notify("another program has locked the index, so entries are read from their files")
            else:
                return self._query_new_index(query, error)
        return self._query_in_memory(query)

    def rebuild(self) -> int:
        """Rebuild the index from the entry files. Return the number of entries. Raises HomeError."""
        try:
            return self._query_file(self._new_path(), _count_entries)
        except (sqlite3.Error, ForeignIndexError, DiskNearlyFull, OSError) as error:
            if _is_full(error):
                self._drop()
            raise HomeError(
                f"cannot rebuild the index in {cache_folder()}: {error}. Everything else works without an index."
            ) from error

    # index files

    def _folder(self) -> Path:
        folder = cache_folder()
        if is_shared(folder):
            folder = local_cache_folder()
        try:
            make_folder(folder)
        except HomeError as error:
            raise ForeignIndexError(str(error)) from error
        if folder == local_cache_folder() and (problem := find_privacy_problem(folder)):
            raise ForeignIndexError(f"{folder} {problem}")
        return folder

    def _index_numbers(self, folder: Path) -> list[int]:
        matches = filter(None, (INDEX_NAME.fullmatch(path.name) for path in folder.iterdir()))
        return sorted({int(match[2]) for match in matches if match[1] == self._stem and match[0].endswith(".sqlite")})

    def _current_path(self) -> Path:
        """Return the path of the index in use, which has the highest number."""
        folder = self._folder()
        return folder / f"{self._stem}.{max(self._index_numbers(folder), default=1)}.sqlite"

    def _new_path(self) -> Path:
        """Delete the old indexes and return a path for a new one. Processes can go on using an index they have open."""
        folder = self._folder()
        numbers = self._index_numbers(folder)
        for number in numbers:
            for suffix in ("", "-wal", "-shm", "-journal"):
                with suppress(OSError):
                    (folder / f"{self._stem}.{number}.sqlite{suffix}").unlink(missing_ok=True)
        return folder / f"{self._stem}.{max(numbers, default=0) + 1}.sqlite"

    def _drop(self) -> None:
        """Delete the index to free its space."""
        folder = self._folder()
        free_cache(folder)
        self._notify_once(
            f"no space is left in {folder}, so the index was deleted and entries are read from their files. "
            "Free some space."
        )

    def _notify_once(self, notice: str) -> None:
        if notice not in self._notices:
            self._notices.add(notice)
            self.notify(notice)

    # queries

    def _query_new_index(self, query: Callable[[sqlite3.Connection], Answer], reason: Exception) -> Answer:
        self.notify(f"the index could not be used ({reason}). A new one is being built from the entry files.")
        try:
            return self._query_file(self._new_path(), query)
        except (sqlite3.Error, ForeignIndexError, DiskNearlyFull, OSError) as error:
            if _is_full(error):
                self._drop()
        self.notify(f"cannot write an index in {cache_folder()}, so listing and searching are slower")
        return self._query_in_memory(query)

    def _query_file(self, path: Path, query: Callable[[sqlite3.Connection], Answer]) -> Answer:
        with closing(_connect(path)) as db:
            self._refresh(db, path.parent)
            return query(db)

    def _query_in_memory(self, query: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Run a query in memory, on an updated copy of the index if it can be read."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            with suppress(sqlite3.Error, ForeignIndexError, OSError):
                if (path := self._current_path()).stat().st_size:  # opening an empty file would write to it
                    with closing(_connect(path, 0.1)) as on_disk:
                        _indexed_change(on_disk)
                        on_disk.backup(db)
            try:
                self._refresh(db)
                return query(db)
            except (sqlite3.Error, ForeignIndexError):
                pass
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            self._refresh(db)
            return query(db)

    def _refresh(self, db: sqlite3.Connection, disk: Path | None = None) -> None:
        """Bring an index up to date. Raises DiskNearlyFull if its folder `disk` has too little space left."""
        changed_at = self.revisions.changed_at()
        indexed_at = _indexed_change(db)
        if indexed_at == changed_at and not self._is_any_repaired(db):
            return
        _check_space(disk)
        db.execute("BEGIN IMMEDIATE")
        try:
            if _indexed_change(db) is None:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
            self._update(db, disk)
            # another change within the clock's resolution would leave the same mtime, so a recent mtime is not stored
            is_settled = (
                time.time_ns() - changed_at > (SHARED_SETTLE_SECONDS if self._is_shared else SETTLE_SECONDS) * 1e9
            )
            db.execute("UPDATE scanned SET changed_at = ?", (changed_at if is_settled else -1,))
            db.execute("COMMIT")
        except BaseException:  # Ctrl-C must release the lock too
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _is_any_repaired(self, db: sqlite3.Connection) -> bool:
        """Return whether a damaged entry has become readable. A repair in place does not change the folder's mtime."""
        for entry_id, revision in db.execute("SELECT id, revision FROM damaged LIMIT 20"):
            with suppress(EntryDamaged, FileNotFoundError):
                self.revisions.read_provenance(entry_id, revision)
                return True
        return False

    def _update(self, db: sqlite3.Connection, disk: Path | None) -> None:
        """Read the headers of entries whose files have changed, and of damaged entries."""
        files = self.revisions.scan()
        if self._is_shared:  # inode numbers are not stable on some network file systems
            files = dict.fromkeys(files, 0)
        known = dict(db.execute("SELECT name, inode FROM file"))
        added = [(name, inode) for name, inode in files.items() if known.get(name) != inode]
        removed = known.keys() - files.keys()
        touched = {name[:16] for name, _ in added} | {name[:16] for name in removed}
        touched |= {row[0] for row in db.execute("SELECT id FROM damaged")}
        if not touched:
            return
        db.executemany("DELETE FROM file WHERE name = ?", ((name,) for name in removed))
        db.executemany("INSERT OR REPLACE INTO file VALUES (?, ?)", added)
        if known:
            _delete_rows(db, touched)
        numbers: dict[str, list[int]] = {}
        for name in files:
            if name[:16] in touched:
                numbers.setdefault(name[:16], []).append(int(name.split(".")[1]))
        entries = [(entry_id, sorted(revisions, reverse=True)) for entry_id, revisions in numbers.items()]
        # an uncached file takes 1 ms to read, and reads do not slow each other down
        with ThreadPoolExecutor(READER_THREADS) as executor:
            for start in range(0, len(entries), READ_CHUNK):
                _check_space(disk)
                chunk = entries[start : start + READ_CHUNK]
                for row in (
                    executor.map(self._read_head, chunk) if len(chunk) > READER_THREADS else map(self._read_head, chunk)
                ):
                    _insert(db, row)

    def _read_head(self, revisions: tuple[str, list[int]]) -> IndexRow | DamagedEntry | None:
        """Read an entry's current header. Return None if the entry was purged."""
        entry_id, (head, *older) = revisions
        try:
            provenance = self.revisions.read_provenance(entry_id, head)
            trashed = _to_text(provenance.get("trashed", ""))
            for number in older if trashed else ():
                with suppress(EntryDamaged):
                    provenance = self.revisions.read_provenance(entry_id, number)
                    break
            if older and "name" not in provenance:
                provenance = {"name": entry_id}  # unreadable, but it can be purged
            return _make_row(entry_id, head, trashed, provenance) if "name" in provenance else None
        except FileNotFoundError:
            return None
        # one damaged file must not hide all other entries
        except (EntryDamaged, ValueError, TypeError, OverflowError, AttributeError) as error:
            return DamagedEntry(entry_id, head, _to_text(error))


def _indexed_change(db: sqlite3.Connection) -> int | None:
    """Return the folder's mtime at the last index update, or None if the index is empty. Raises ForeignIndexError."""
    application, version = (
        db.execute("PRAGMA application_id").fetchone()[0],
        db.execute("PRAGMA user_version").fetchone()[0],
    )
    if (application, version) == (0, 0) and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
        return None
    if (application, version) != (APPLICATION_ID, FORMAT):
        raise ForeignIndexError("it was made by another program or a different version")
    row = db.execute("SELECT changed_at FROM scanned").fetchone()
    if row is None or not isinstance(row[0], int):
        raise ForeignIndexError("it is damaged")
    return row[0]


def _connect(path: Path, timeout: float | None = None) -> sqlite3.Connection:
    """Open the database, or create it as a private file. Raises ForeignIndexError, OSError or sqlite3.Error."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        set_mode(path, 0o600)  # regardless of the umask; SQLite gives its other files the same mode
    except FileExistsError:
        # do not open the file here, because closing it would drop the locks that SQLite holds in other threads
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise ForeignIndexError(f"{path} is not a regular file owned by this user") from None
    db = sqlite3.connect(path, timeout=LOCK_TIMEOUT_SECONDS if timeout is None else timeout, isolation_level=None)
    try:
        for setting in ("journal_mode = WAL", "synchronous = NORMAL", "temp_store = MEMORY", "cache_size = -65536"):
            db.execute(f"PRAGMA {setting}")
    except BaseException:  # including Ctrl-C
        db.close()
        raise
    return db


def _delete_rows(db: sqlite3.Connection, ids: Iterable[str]) -> None:
    for entry_id in ids:
        row = db.execute("SELECT key FROM head WHERE id = ?", (entry_id,)).fetchone()
        db.execute("DELETE FROM damaged WHERE id = ?", (entry_id,))
        if row:
            db.execute("DELETE FROM word WHERE rowid = ?", row)
            db.execute("DELETE FROM head WHERE key = ?", row)


def _make_row(entry_id: str, revision: int, trashed: str, provenance: dict[str, Any]) -> IndexRow:
    composition, tags = provenance.get("composition"), provenance.get("tags")
    composed = composition.get("mean") if isinstance(composition, dict) else None
    tags = [_to_text(tag) for tag in tags] if isinstance(tags, list) else []
    texts = [_to_text(provenance.get(key, "")) for key in _TEXTS]
    numbers = [_to_number(provenance.get(key)) for key in _NUMBERS]
    columns = (entry_id, revision, trashed, *texts, *numbers, _to_number(composed), json.dumps(tags))
    values = (*columns, name_key(texts[0]), max(texts[5], texts[6]))
    text = " ".join((texts[0], texts[1], texts[3], texts[7], *tags))
    return IndexRow(values, " ".join((*split_words(text), *filter_terms(bool(trashed), tags, texts[2]))))


def _insert(db: sqlite3.Connection, row: IndexRow | DamagedEntry | None) -> None:
    if isinstance(row, DamagedEntry):
        db.execute("INSERT INTO damaged VALUES (?, ?, ?)", row)
    elif row is not None:
        placeholders = ", ".join("?" * len(row.values))
        key = db.execute(
            f"INSERT INTO head ({', '.join(COLUMNS)}, same, touched) VALUES ({placeholders})", row.values
        ).lastrowid
        db.execute("INSERT INTO word (rowid, text) VALUES (?, ?)", (key, row.terms))


def filter_terms(trashed: bool, tags: Iterable[str], model: str) -> list[str]:
    """Return the search terms for filters. They start with private-use characters, so they never equal a word."""
    filters = [("\ue001", tag) for tag in tags] + [("\ue002", model)] * bool(model)
    return [
        "\ue000trashed" if trashed else "\ue000living",
        *(kind + name_key(_to_text(text).strip()).encode().hex() for kind, text in filters),
    ]


def _to_text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()  # SQLite rejects unpaired surrogates


def _to_number(value: object) -> float | int | None:
    """Return a number that SQLite can store, or None."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if abs(value) < 1 << 63 else None


def _count_entries(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM head").fetchone()[0])


def _check_space(folder: Path | None) -> None:
    """Raise DiskNearlyFull if the folder's disk has less than RESERVE_BYTES free."""
    if folder is not None and shutil.disk_usage(folder).free < RESERVE_BYTES:
        raise DiskNearlyFull(f"less than {RESERVE_BYTES >> 20} MB is free in {folder}, too little to update the index")


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_SPACE_ERRNOS
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _is_locked(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
