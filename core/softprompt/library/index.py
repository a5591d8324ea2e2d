"""The index: what the heads of all entries say, in SQLite with full-text search. The files are the truth; it can be lost at any time.

It lies in the cache folder, or on local storage where that is shared by hosts. Where it is broken another's beside it takes its place;
where it is held by another program, or cannot be written, the entries are read into one in memory, and that is said. The last space of
a disk is not for it: what runs out of space can delete it (softprompt.system.paths.free_cache).
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
from softprompt.library.names import same
from softprompt.library.revisions import Revisions
from softprompt.library.search_terms import words
from softprompt.system.files import NO_SPACE
from softprompt.system.filesystems import is_shared, set_mode
from softprompt.system.paths import INDEX, cache_folder, free_cache, local_cache_folder, make_folder, why_not_ours

FORMAT = 1
APPLICATION = 0x736F6674  # "soft": tells our index from another program's database
WAIT, HELD_FOR = 2.0, 30.0  # seconds: for another program's lock, and until it is tried again
RESERVE = 8 << 20  # bytes of its disk that the index leaves free, for what cannot be made again
READERS, AT_ONCE = 16, 2000  # threads that read entries; entries read before they are written down
SETTLED, SETTLED_SHARED = (
    0.2,
    5.0,
)  # seconds after which a folder's time of change is sure to differ from that of a later change

Answer = TypeVar("Answer")

_TEXTS = ("name", "hard_prompt", "model", "readout_text", "stopped", "created", "changed", "note")
_NUMBERS = ("tokens", "similarity", "readout_similarity", "steps", "seconds")
COLUMNS = ("id", "revision", "trashed", *_TEXTS, *_NUMBERS, "composed", "tags")
SORTED = ("created", "touched", "same", "model", "tokens", "similarity", "composed", "steps", "seconds")
_SCHEMA = f"""
CREATE TABLE file (name TEXT PRIMARY KEY, inode INTEGER) WITHOUT ROWID;
CREATE TABLE head (key INTEGER PRIMARY KEY, {", ".join(COLUMNS)}, same TEXT, touched TEXT);
CREATE UNIQUE INDEX head_id ON head (id);
CREATE INDEX head_name ON head (same);
{"".join(f"CREATE INDEX head_by_{column} ON head (trashed, {column}, id);" + chr(10) for column in SORTED)}CREATE TABLE damaged (id TEXT PRIMARY KEY, revision INTEGER, message TEXT);
CREATE TABLE scanned (changed_at INTEGER);
INSERT INTO scanned VALUES (-1);
CREATE VIRTUAL TABLE word USING fts5 (text, tokenize = 'ascii', detail = 'none', prefix = '1 2 3');
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
"""


class Head(NamedTuple):
    """A row of the index and the words that find it."""

    values: tuple[Any, ...]
    words: str


class Damaged(NamedTuple):
    """An entry that cannot be read, and why."""

    id: str
    revision: int
    message: str


class ForeignIndexError(Exception):
    """A file in the index's place that is none of ours."""


class NearlyFull(Exception):
    """The index's disk has no space left but for what cannot be made again."""


class Index:
    """The index of the entries in `revisions`; `say` is told when it cannot be used as it should."""

    def __init__(self, revisions: Revisions, say: Callable[[str], None]) -> None:
        self.revisions = revisions
        self.say = say
        self._stem = f"library-{hashlib.sha256(os.fsencode(os.path.realpath(revisions.folder))).hexdigest()[:16]}"
        self._shared = is_shared(revisions.folder)
        self._said: set[str] = set()
        self._held_until = 0.0  # another program has the index; it is not waited for again until then

    def ask(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """The answer to a question put to an index that is up to date. Raises HomeError where the entries cannot be read."""
        if time.monotonic() < self._held_until:
            return self._asked_in_memory(question)
        try:
            return self._asked(self._kept(), question)
        except NearlyFull as error:
            self._say_once(f"{error}: what has changed since is read from the entries' files. Free some space")
        except (sqlite3.Error, ForeignIndexError, OSError) as error:
            if _is_full(error):
                self._drop()
            elif _is_locked(error):
                self._held_until = time.monotonic() + HELD_FOR
                self.say("the index is held by another program: the entries are read from their files")
            else:
                return self._asked_beside(question, error)
        return self._asked_in_memory(question)

    def rebuild(self) -> int:
        """Makes the index anew from the entries' files; returns how many there are. Raises HomeError."""
        try:
            return self._asked(self._beside(), _count)
        except (sqlite3.Error, ForeignIndexError, NearlyFull, OSError) as error:
            if _is_full(error):
                self._drop()
            raise HomeError(
                f"the index cannot be rebuilt in {cache_folder()} ({error}): free it. All else works without it"
            ) from error

    # where it lies

    def _folder(self) -> Path:
        folder = cache_folder()
        if is_shared(folder):
            folder = local_cache_folder()
        try:
            make_folder(folder)
        except HomeError as error:
            raise ForeignIndexError(str(error)) from error
        if folder == local_cache_folder() and (wrong := why_not_ours(folder)):
            raise ForeignIndexError(f"{folder} {wrong}")
        return folder

    def _numbers(self, folder: Path) -> list[int]:
        matches = filter(None, (INDEX.fullmatch(path.name) for path in folder.iterdir()))
        return sorted({int(match[2]) for match in matches if match[1] == self._stem and match[0].endswith(".sqlite")})

    def _kept(self) -> Path:
        """The index in use: the one of the highest number."""
        folder = self._folder()
        return folder / f"{self._stem}.{max(self._numbers(folder), default=1)}.sqlite"

    def _beside(self) -> Path:
        """A new one's place. The older ones go: who has one open keeps it until he closes it."""
        folder = self._folder()
        numbers = self._numbers(folder)
        for number in numbers:
            for suffix in ("", "-wal", "-shm", "-journal"):
                with suppress(OSError):
                    (folder / f"{self._stem}.{number}.sqlite{suffix}").unlink(missing_ok=True)
        return folder / f"{self._stem}.{max(numbers, default=0) + 1}.sqlite"

    def _drop(self) -> None:
        """Gives its space back."""
        folder = self._folder()
        free_cache(folder)
        self._say_once(
            f"no space is left in {folder}: the index is dropped, and the entries are read from their files. Free some space"
        )

    def _say_once(self, notice: str) -> None:
        if notice not in self._said:
            self._said.add(notice)
            self.say(notice)

    # asking

    def _asked_beside(self, question: Callable[[sqlite3.Connection], Answer], why: Exception) -> Answer:
        self.say(f"the index could not be used ({why}): the entries are read from their files, into another one")
        try:
            return self._asked(self._beside(), question)
        except (sqlite3.Error, ForeignIndexError, NearlyFull, OSError) as error:
            if _is_full(error):
                self._drop()
        self.say(f"an index cannot be kept in {cache_folder()}: what takes long without it will take long each time")
        return self._asked_in_memory(question)

    def _asked(self, where: Path, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        with closing(_connected(where)) as db:
            self._refresh(db, where.parent)
            return question(db)

    def _asked_in_memory(self, question: Callable[[sqlite3.Connection], Answer]) -> Answer:
        """Of the index that is kept, what can be read of it, brought up to date in memory."""
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            with suppress(sqlite3.Error, ForeignIndexError, OSError):
                if (path := self._kept()).stat().st_size:  # to open an empty one would write to it
                    with closing(_connected(path, 0.1)) as kept:
                        _known_change(kept)
                        kept.backup(db)
            try:
                self._refresh(db)
                return question(db)
            except (sqlite3.Error, ForeignIndexError):
                pass
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            self._refresh(db)
            return question(db)

    def _refresh(self, db: sqlite3.Connection, disk: Path | None = None) -> None:
        """Brings an index up to date; raises NearlyFull where it lies in the folder `disk` and that has too little space left."""
        changed_at = self.revisions.changed_at()
        known = _known_change(db)
        if known == changed_at and not self._some_are_mended(db):
            return
        _check_space(disk)
        db.execute("BEGIN IMMEDIATE")
        try:
            if _known_change(db) is None:
                for statement in _SCHEMA.split(";\n"):
                    db.execute(statement)
            self._read_anew(db, disk)
            # a change within the clock's grain of this one would leave the same time: such a time is not trusted
            settled = time.time_ns() - changed_at > (SETTLED_SHARED if self._shared else SETTLED) * 1e9
            db.execute("UPDATE scanned SET changed_at = ?", (changed_at if settled else -1,))
            db.execute("COMMIT")
        except BaseException:  # also Ctrl-C must not hold the lock; it goes on as it came
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise

    def _some_are_mended(self, db: sqlite3.Connection) -> bool:
        """Whether an entry can be read that could not: a file can be mended in place, or made readable."""
        for entry_id, revision in db.execute("SELECT id, revision FROM damaged LIMIT 20"):
            with suppress(EntryDamaged, FileNotFoundError):
                self.revisions.provenance(entry_id, revision)
                return True
        return False

    def _read_anew(self, db: sqlite3.Connection, disk: Path | None) -> None:
        """Reads the heads of the entries of which a file has come or gone, and again those that could not be read."""
        found = self.revisions.scan()
        if self._shared:  # numbers of files are made up anew on some such systems
            found = dict.fromkeys(found, 0)
        known = dict(db.execute("SELECT name, inode FROM file"))
        come = [(name, inode) for name, inode in found.items() if known.get(name) != inode]
        gone = known.keys() - found.keys()
        touched = {name[:16] for name, _ in come} | {name[:16] for name in gone}
        touched |= {row[0] for row in db.execute("SELECT id FROM damaged")}
        if not touched:
            return
        db.executemany("DELETE FROM file WHERE name = ?", ((name,) for name in gone))
        db.executemany("INSERT OR REPLACE INTO file VALUES (?, ?)", come)
        if known:
            _forget(db, touched)
        numbers: dict[str, list[int]] = {}
        for name in found:
            if name[:16] in touched:
                numbers.setdefault(name[:16], []).append(int(name.split(".")[1]))
        heads = [(entry_id, sorted(revisions, reverse=True)) for entry_id, revisions in numbers.items()]
        with ThreadPoolExecutor(
            READERS
        ) as pool:  # files that are not in memory take a millisecond each, and do not wait for each other
            for at in range(0, len(heads), AT_ONCE):
                _check_space(disk)
                part = heads[at : at + AT_ONCE]
                for read in pool.map(self._read_head, part) if len(part) > READERS else map(self._read_head, part):
                    _write_down(db, read)

    def _read_head(self, found: tuple[str, list[int]]) -> Head | Damaged | None:
        """What an entry is now; None for one that is purged, or gone since: the folder's time of change tells the next time."""
        entry_id, (head, *older) = found
        try:
            provenance = self.revisions.provenance(entry_id, head)
            trashed = _text(provenance.get("trashed", ""))
            for number in older if trashed else ():
                with suppress(EntryDamaged):
                    provenance = self.revisions.provenance(entry_id, number)
                    break
            if older and "name" not in provenance:
                provenance = {"name": entry_id}  # nothing of it can be read, but it can be purged
            return _head(entry_id, head, trashed, provenance) if "name" in provenance else None
        except FileNotFoundError:
            return None
        except (
            EntryDamaged,
            ValueError,
            TypeError,
            OverflowError,
            AttributeError,
        ) as error:  # one file must not hide the others
            return Damaged(entry_id, head, _text(error))


def _known_change(db: sqlite3.Connection) -> int | None:
    """The folder's time of change when it was last read, None for an index that is still empty. Raises Foreign."""
    application, version = (
        db.execute("PRAGMA application_id").fetchone()[0],
        db.execute("PRAGMA user_version").fetchone()[0],
    )
    if (application, version) == (0, 0) and not db.execute("SELECT 1 FROM sqlite_master").fetchone():
        return None
    if (application, version) != (APPLICATION, FORMAT):
        raise ForeignIndexError("it was made by another program or version")
    row = db.execute("SELECT changed_at FROM scanned").fetchone()
    if row is None or not isinstance(row[0], int):
        raise ForeignIndexError("it is not whole")
    return row[0]


def _connected(path: Path, wait: float | None = None) -> sqlite3.Connection:
    """The database in a private file of ours, made where there is none. Raises Foreign, OSError, sqlite3.Error."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        set_mode(path, 0o600)  # whatever the umask; SQLite gives its other files the same mode
    except (
        FileExistsError
    ):  # it is not opened here: to close it would drop the locks that SQLite holds in other threads
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            raise ForeignIndexError(f"{path} is no file of ours") from None
    db = sqlite3.connect(path, timeout=WAIT if wait is None else wait, isolation_level=None)
    try:
        for setting in ("journal_mode = WAL", "synchronous = NORMAL", "temp_store = MEMORY", "cache_size = -65536"):
            db.execute(f"PRAGMA {setting}")
    except BaseException:  # nobody else could close it; it goes on as it came
        db.close()
        raise
    return db


def _forget(db: sqlite3.Connection, ids: Iterable[str]) -> None:
    for entry_id in ids:
        row = db.execute("SELECT key FROM head WHERE id = ?", (entry_id,)).fetchone()
        db.execute("DELETE FROM damaged WHERE id = ?", (entry_id,))
        if row:
            db.execute("DELETE FROM word WHERE rowid = ?", row)
            db.execute("DELETE FROM head WHERE key = ?", row)


def _head(entry_id: str, revision: int, trashed: str, provenance: dict[str, Any]) -> Head:
    composition, tags = provenance.get("composition"), provenance.get("tags")
    composed = composition.get("mean") if isinstance(composition, dict) else None
    tags = [_text(tag) for tag in tags] if isinstance(tags, list) else []
    texts = [_text(provenance.get(key, "")) for key in _TEXTS]
    numbers = [_number(provenance.get(key)) for key in _NUMBERS]
    shown = (entry_id, revision, trashed, *texts, *numbers, _number(composed), json.dumps(tags))
    values = (*shown, same(texts[0]), max(texts[5], texts[6]))
    said = " ".join((texts[0], texts[1], texts[3], texts[7], *tags))
    return Head(values, " ".join((*words(said), *marks(bool(trashed), tags, texts[2]))))


def _write_down(db: sqlite3.Connection, read: Head | Damaged | None) -> None:
    if isinstance(read, Damaged):
        db.execute("INSERT INTO damaged VALUES (?, ?, ?)", read)
    elif read is not None:
        places = ", ".join("?" * len(read.values))
        key = db.execute(
            f"INSERT INTO head ({', '.join(COLUMNS)}, same, touched) VALUES ({places})", read.values
        ).lastrowid
        db.execute("INSERT INTO word (rowid, text) VALUES (?, ?)", (key, read.words))


def marks(trashed: bool, tags: Iterable[str], model: str) -> list[str]:
    """What an entry can be filtered by, as words that no text has: they begin with characters of private use."""
    marked = [("\ue001", tag) for tag in tags] + [("\ue002", model)] * bool(model)
    return [
        "\ue000trashed" if trashed else "\ue000living",
        *(kind + same(_text(text).strip()).encode().hex() for kind, text in marked),
    ]


def _text(value: object) -> str:
    return str(value).encode("utf-8", "replace").decode()  # SQLite takes no half of a surrogate pair


def _number(value: object) -> float | int | None:
    """A number as SQLite can hold it."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if abs(value) < 1 << 63 else None


def _count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM head").fetchone()[0])


def _check_space(folder: Path | None) -> None:
    """Raises NearlyFull where a folder's disk has less free than is to stay free."""
    if folder is not None and shutil.disk_usage(folder).free < RESERVE:
        raise NearlyFull(f"less than {RESERVE >> 20} MB are free in {folder}, which are not for the index")


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in NO_SPACE
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def _is_locked(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
