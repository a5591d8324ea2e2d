"""Queries on the index: list, search and find entries without opening them."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import EntryDamaged
from softprompt.library.index import COLUMNS, ForeignIndexError, filter_terms
from softprompt.library.names import name_key
from softprompt.library.search_terms import split_words
from softprompt.prompts.visible_text import format_count, short_repr

if TYPE_CHECKING:
    from pandas import DataFrame

_DESC, _ASC = "DESC", "ASC"
SORTS = {
    "created": _DESC, "changed": _DESC, "name": _ASC, "model": _ASC, "tokens": _DESC, "similarity": _DESC,
    "composed": _DESC, "steps": _DESC, "seconds": _DESC,
}  # fmt: skip
_SORT_COLUMNS = {"changed": "touched", "name": "same"}  # where the column has a different name
MAX_UNINDEXED_SORT = 2000  # more entries are sorted with an index; sorting without it takes 1 µs each
MAX_SHOWN = 10  # entries in a notebook
MAX_SAME_PROMPT = 500  # entries of one prompt whose settings are compared; reading one takes up to 1 ms
MAX_COMPARED = 20_000  # names that a misspelled name is compared with; 20 ms per thousand


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return short_repr(
            "EntrySummary",
            self.name,
            id=self.id,
            revision=self.revision,
            hard_prompt=self.hard_prompt,
            tokens=self.tokens,
            model=self.model,
            similarity=self.similarity,
            tags=self.tags,
        )


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        damaged = f", {len(self.damaged):,} damaged" if self.damaged else ""
        return f"EntryPage({len(self.entries):,} of {format_count(self.total, 'entry')}{damaged})"

    def _repr_html_(self) -> str:
        return show_entries(repr(self), self)

    def to_dataframe(self) -> DataFrame:
        """Return a pandas table with one row per entry and the fields of EntrySummary as columns.

        Raises:
            MissingPackage: pandas is not installed.
        """
        from softprompt.prompts.optional_packages import data_frame

        columns: dict[str, list[Any]] = {
            field.name: [getattr(entry, field.name) for entry in self.entries] for field in fields(EntrySummary)
        }
        return data_frame(columns | {"path": list(map(str, columns["path"]))})


def show_entries(title: str, page: EntryPage) -> str:
    """Return a page of entries as HTML."""
    from softprompt.prompts.html import show_table  # listing needs no HTML

    rows = [
        (entry.name, entry.hard_prompt, entry.tokens, entry.model, entry.similarity, entry.composed)
        for entry in page.entries[:MAX_SHOWN]
    ]
    hidden = page.total - len(rows)
    note = f"and {format_count(hidden, 'more entry')}" if hidden > 0 else ""
    return show_table(title, ("name", "hard prompt", "tokens", "model", "similarity", "composed"), rows, note)


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
        db.execute(f"SELECT {column}, id FROM {source} AND id = ?", [query.match(), _as_utf8(locate)]).fetchone()
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
    rows = db.execute(statement + "same = ? ORDER BY created DESC", [_as_utf8(name_key(name.strip()))]).fetchall()
    if not rows and (prefix := id_prefix(name)):
        rows = db.execute(statement + "id >= ? AND id < ? LIMIT 10", [prefix, prefix + "g"]).fetchall()
    return [_to_summary(row, path) for row in rows]


def find_by_prompt(db: sqlite3.Connection, path: Callable[[str, int], Path], hard_prompt: str) -> list[EntrySummary]:
    """Return the latest entries with this hard prompt. Reads the whole table: 25 ms at 10,000 entries."""
    statement = f"SELECT {', '.join(COLUMNS)} FROM head WHERE trashed = '' AND hard_prompt = ?"
    rows = db.execute(f"{statement} ORDER BY created DESC LIMIT ?", [_as_utf8(hard_prompt), MAX_SAME_PROMPT])
    return [_to_summary(row, path) for row in rows]


def count_entries(db: sqlite3.Connection) -> int:
    """Return the number of entries, without the trash and damaged entries."""
    return int(db.execute("SELECT count(*) FROM head WHERE trashed = ''").fetchone()[0])


def list_ids(db: sqlite3.Connection) -> list[tuple[str, int]]:
    """Return the id and revision of every entry, newest first."""
    return db.execute("SELECT id, revision FROM head WHERE trashed = '' ORDER BY created DESC, id DESC").fetchall()


def count_tags(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many entries have each tag, the most frequent first."""
    counts: Counter[str] = Counter()
    rows = db.execute("SELECT tags, count(*) FROM head WHERE trashed = '' AND tags != '[]' GROUP BY tags")
    for tags, entries in rows:
        for tag in json.loads(tags):
            counts[tag] += entries
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def suggest_entries(
    db: sqlite3.Connection, path: Callable[[str, int], Path], text: str, limit: int
) -> list[EntrySummary]:
    """Return entries for a half-typed text: names that start with it, names that contain it, then prompts."""
    key = _as_utf8(name_key(text.strip()))
    if not key:
        return list_entries(db, path, EntryQuery(), "created", False, limit, 0).entries
    rows = db.execute(
        f"SELECT {', '.join(COLUMNS)} FROM head WHERE trashed = '' AND instr(same, ?) "
        "ORDER BY instr(same, ?) > 1, created DESC, id DESC LIMIT ?",
        [key, key, limit],
    )
    named = [_to_summary(row, path) for row in rows]
    found = {entry.id for entry in named}
    if len(named) < limit:
        others = list_entries(db, path, EntryQuery(text), "created", False, limit, 0).entries
        named += [entry for entry in others if entry.id not in found][: limit - len(named)]
    return named


def has_entry(db: sqlite3.Connection, name: str) -> bool:
    """Return whether an entry, intact or damaged, has this name or this whole id."""
    entry_id = name.strip().lower()
    is_id = "SELECT 1 FROM head WHERE id = ? AND trashed = '' UNION ALL SELECT 1 FROM damaged WHERE id = ? LIMIT 1"
    return is_name_taken(db, name_key(name.strip())) or (
        bool(id_prefix(entry_id)) and db.execute(is_id, [entry_id, entry_id]).fetchone() is not None
    )


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
        db.execute("SELECT 1 FROM head WHERE +trashed = '' AND same = ? LIMIT 1", [_as_utf8(key)]).fetchone()
        is not None
    )


def _as_utf8(text: str) -> str:
    """Return a text that SQLite accepts: without lone surrogates, which no stored text has."""
    return text.encode("utf-8", "replace").decode()


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
