"""Queries on the index: list, search and find entries without opening them."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from softprompt.errors import EntryDamaged
from softprompt.library.index import COLUMNS, ForeignIndexError, filter_terms
from softprompt.library.names import name_key
from softprompt.library.search_terms import split_words

_DESC, _ASC = "DESC", "ASC"
SORTS = {
    "created": _DESC, "changed": _DESC, "name": _ASC, "model": _ASC, "tokens": _DESC, "similarity": _DESC,
    "composed": _DESC, "steps": _DESC, "seconds": _DESC,
}  # fmt: skip
_SORT_COLUMNS = {"changed": "touched", "name": "same"}  # where the column has a different name
MAX_UNINDEXED_SORT = 2000  # more entries are sorted with an index; sorting without it takes 1 µs each
MAX_COMPARED = 20_000  # names that a misspelled name is compared with; 20 ms per thousand


@dataclass(frozen=True)
class EntrySummary:
    """An entry as its unverified header describes it. `trashed` is the time of its deletion, or ""."""

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
    """A page of a sorted list of entries.

    Attributes:
        total: number of entries in the whole list.
        damaged: errors of entries that could not be read.
        position: index in the whole list of the entry to locate, or None if it is not in the list.
    """

    entries: list[EntrySummary]
    total: int
    damaged: list[EntryDamaged]
    position: int | None = None


@dataclass(frozen=True)
class EntryQuery:
    """A filter: entries with all these words or beginnings of words, all these tags, and this model."""

    words: str = ""
    tags: tuple[str, ...] = ()
    model: str = ""
    trashed: bool = False

    def match(self) -> str:
        """Return the FTS5 expression. A search without letters or digits becomes a term that matches no entry."""
        words = split_words(self.words)
        terms = [f'"{word}"*' for word in words] if words or not self.words.strip() else ['"\ue003"']
        return " ".join([*(f'"{mark}"' for mark in filter_terms(self.trashed, self.tags, self.model)), *terms])


def list_entries(
    db: sqlite3.Connection,
    path: Callable[[str, int], Path],
    query: EntryQuery,
    sort: str,
    reverse: bool,
    limit: int | None,
    offset: int,
    locate: str = "",
) -> EntryPage:
    total = int(db.execute("SELECT count(*) FROM word WHERE word MATCH ?", [query.match()]).fetchone()[0])
    direction = {_ASC: _DESC, _DESC: _ASC}[SORTS[sort]] if reverse else SORTS[sort]
    column = _SORT_COLUMNS.get(sort, sort)
    if total > MAX_UNINDEXED_SORT and not query.trashed:
        # walk the sorting index until the page is full; the whole index takes 20 ms at 100,000 entries
        source = (
            f"head INDEXED BY head_by_{column} "
            "WHERE trashed = '' AND key IN (SELECT rowid FROM word WHERE word MATCH ?)"
        )
    else:
        source = "word CROSS JOIN head ON key = word.rowid WHERE word MATCH ?"
    statement = (
        f"SELECT {', '.join(COLUMNS)} FROM {source} ORDER BY {column} {direction}, id {direction} LIMIT ? OFFSET ?"
    )
    rows = db.execute(statement, [query.match(), -1 if limit is None else limit, offset])
    damaged = [EntryDamaged(message) for (message,) in db.execute("SELECT message FROM damaged ORDER BY id")]
    position = None
    key = (
        db.execute(f"SELECT {column}, id FROM {source} AND id = ?", [query.match(), locate]).fetchone()
        if locate
        else None
    )
    if key:
        count_before = f"SELECT count(*) FROM {source} AND ({column}, id) {'>' if direction == _DESC else '<'} (?, ?)"
        position = int(db.execute(count_before, [query.match(), *key]).fetchone()[0])
    return EntryPage([_to_summary(row, path) for row in rows], total, damaged, position)


def find_entries(
    db: sqlite3.Connection, path: Callable[[str, int], Path], name: str, trashed: bool
) -> list[EntrySummary]:
    """Return the entries with this name or, if there are none, those whose id starts with it."""
    # the + keeps SQLite from using an index on `trashed`
    statement = f"SELECT {', '.join(COLUMNS)} FROM head WHERE +trashed {'!=' if trashed else '='} '' AND "
    rows = db.execute(
        statement + "same = ? ORDER BY created DESC", [name_key(name.strip()).encode("utf-8", "replace").decode()]
    ).fetchall()
    if not rows and (prefix := id_prefix(name)):
        rows = db.execute(statement + "id >= ? AND id < ? LIMIT 10", [prefix, prefix + "g"]).fetchall()
    return [_to_summary(row, path) for row in rows]


def find_damaged(db: sqlite3.Connection, name: str) -> list[tuple[str, int, str]]:
    """Return the id, revision and error of each damaged entry whose id starts with `name`."""
    prefix = id_prefix(name)
    rows = db.execute(
        "SELECT id, revision, message FROM damaged WHERE id >= ? AND id < ? LIMIT 10", [prefix, prefix + "g"]
    )
    return rows.fetchall() if prefix else []


def find_close_names(db: sqlite3.Connection, name: str) -> list[str]:
    rows = db.execute("SELECT same, name FROM head WHERE trashed = '' LIMIT ?", [MAX_COMPARED])
    names: dict[str, str] = dict(rows.fetchall())
    return [names[close] for close in get_close_matches(name_key(name), names, 3)]


def is_name_taken(db: sqlite3.Connection, key: str) -> bool:
    return (
        db.execute(
            "SELECT 1 FROM head WHERE +trashed = '' AND same = ? LIMIT 1", [key.encode("utf-8", "replace").decode()]
        ).fetchone()
        is not None
    )


def id_prefix(name: str) -> str:
    """Return the name as an id prefix, or "" if it cannot be one."""
    name = name.strip().lower()
    return name if len(name) >= 4 and set(name) <= set("0123456789abcdef") else ""


def _to_summary(row: tuple[Any, ...], path: Callable[[str, int], Path]) -> EntrySummary:
    values = dict(zip(COLUMNS, row, strict=True))
    try:
        return EntrySummary(
            **values | {"tags": tuple(json.loads(values["tags"])), "path": path(values["id"], values["revision"])}
        )
    except (TypeError, ValueError) as error:
        raise ForeignIndexError(f"it is damaged: {error}") from error
