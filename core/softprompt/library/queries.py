"""What the library can say of its entries without opening them: lists, searches, and names."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from softprompt.errors import EntryDamaged
from softprompt.library.index import COLUMNS, ForeignIndexError, marks
from softprompt.library.names import same
from softprompt.library.search_terms import words

_DOWN, _UP = "DESC", "ASC"
SORTS = {
    "created": _DOWN, "changed": _DOWN, "name": _UP, "model": _UP, "tokens": _DOWN, "similarity": _DOWN, "composed": _DOWN, "steps": _DOWN, "seconds": _DOWN,
}  # fmt: skip
_BY = {"changed": "touched", "name": "same"}  # columns of another name
FEW = 2000  # entries that are sorted as they are found, 1 µs each
MAX_COMPARED = 20_000  # names among which a misspelled one is looked for; 20 ms a thousand


@dataclass(frozen=True)
class EntrySummary:
    """An entry as its header gives it, not yet checked against its bytes. `trashed` is when it was deleted, or ""."""

    id: str
    revision: int
    path: Path
    trashed: str
    name: str
    hard_prompt: str
    model: str
    tokens: int | None
    similarity: float | None
    composed: float | None
    readout_text: str
    readout_similarity: float | None
    steps: int | None
    seconds: float | None
    stopped: str
    created: str
    changed: str
    tags: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class EntryPage:
    """Some of the entries in their order, how many there are in all, and what is wrong with those that could not be read.

    `at` is the place, from 0, of the entry that was to be located, None where it is not among them.
    """

    entries: list[EntrySummary]
    total: int
    damaged: list[EntryDamaged]
    at: int | None = None


@dataclass(frozen=True)
class EntryQuery:
    """Which entries: with all these words, each perhaps only begun; all these tags; of this model."""

    words: str = ""
    tags: tuple[str, ...] = ()
    model: str = ""
    trashed: bool = False

    def match(self) -> str:
        """As an expression of FTS5. Words of nothing but signs become one that no entry has."""
        sought = words(self.words)
        terms = [f'"{word}"*' for word in sought] if sought or not self.words.strip() else ['"\ue003"']
        return " ".join([*(f'"{mark}"' for mark in marks(self.trashed, self.tags, self.model)), *terms])


def listing(
    db: sqlite3.Connection,
    path: Callable[[str, int], Path],
    wanted: EntryQuery,
    sort: str,
    reverse: bool,
    limit: int | None,
    offset: int,
    locate: str = "",
) -> EntryPage:
    total = int(db.execute("SELECT count(*) FROM word WHERE word MATCH ?", [wanted.match()]).fetchone()[0])
    way = {_UP: _DOWN, _DOWN: _UP}[SORTS[sort]] if reverse else SORTS[sort]
    by = _BY.get(sort, sort)
    if (
        total > FEW and not wanted.trashed
    ):  # along the sorting index until there are enough, 20 ms for the whole of it at 100,000
        among = (
            f"head INDEXED BY head_by_{by} WHERE trashed = '' AND key IN (SELECT rowid FROM word WHERE word MATCH ?)"
        )
    else:
        among = "word CROSS JOIN head ON key = word.rowid WHERE word MATCH ?"
    query = f"SELECT {', '.join(COLUMNS)} FROM {among} ORDER BY {by} {way}, id {way} LIMIT ? OFFSET ?"
    rows = db.execute(query, [wanted.match(), -1 if limit is None else limit, offset])
    damaged = [EntryDamaged(message) for (message,) in db.execute("SELECT message FROM damaged ORDER BY id")]
    at = None
    sought = (
        db.execute(f"SELECT {by}, id FROM {among} AND id = ?", [wanted.match(), locate]).fetchone() if locate else None
    )
    if sought:
        before = f"SELECT count(*) FROM {among} AND ({by}, id) {'>' if way == _DOWN else '<'} (?, ?)"
        at = int(db.execute(before, [wanted.match(), *sought]).fetchone()[0])
    return EntryPage([_listed(row, path) for row in rows], total, damaged, at)


def matches(db: sqlite3.Connection, path: Callable[[str, int], Path], name: str, trashed: bool) -> list[EntrySummary]:
    """The entries of this name, or else of this id or one that begins so."""
    query = f"SELECT {', '.join(COLUMNS)} FROM head WHERE +trashed {'!=' if trashed else '='} '' AND "  # +: by name, not by trashed
    rows = db.execute(
        query + "same = ? ORDER BY created DESC", [same(name.strip()).encode("utf-8", "replace").decode()]
    ).fetchall()
    if not rows and (beginning := id_beginning(name)):
        rows = db.execute(query + "id >= ? AND id < ? LIMIT 10", [beginning, beginning + "g"]).fetchall()
    return [_listed(row, path) for row in rows]


def damaged_heads(db: sqlite3.Connection, name: str) -> list[tuple[str, int, str]]:
    """(id, revision, what is wrong) of those that cannot be read and whose id begins so."""
    beginning = id_beginning(name)
    rows = db.execute(
        "SELECT id, revision, message FROM damaged WHERE id >= ? AND id < ? LIMIT 10", [beginning, beginning + "g"]
    )
    return rows.fetchall() if beginning else []


def close_names(db: sqlite3.Connection, name: str) -> list[str]:
    rows = db.execute("SELECT same, name FROM head WHERE trashed = '' LIMIT ?", [MAX_COMPARED])
    spelled: dict[str, str] = dict(rows.fetchall())
    return [spelled[close] for close in get_close_matches(same(name), spelled, 3)]


def is_taken(db: sqlite3.Connection, key: str) -> bool:
    return (
        db.execute(
            "SELECT 1 FROM head WHERE +trashed = '' AND same = ? LIMIT 1", [key.encode("utf-8", "replace").decode()]
        ).fetchone()
        is not None
    )


def id_beginning(name: str) -> str:
    """The name as the beginning of an id, "" where it is none."""
    name = name.strip().lower()
    return name if len(name) >= 4 and set(name) <= set("0123456789abcdef") else ""


def _listed(row: tuple[Any, ...], path: Callable[[str, int], Path]) -> EntrySummary:
    values = dict(zip(COLUMNS, row, strict=True))
    try:
        return EntrySummary(
            **values | {"tags": tuple(json.loads(values["tags"])), "path": path(values["id"], values["revision"])}
        )
    except (TypeError, ValueError) as error:
        raise ForeignIndexError(f"it is not whole: {error}") from error
