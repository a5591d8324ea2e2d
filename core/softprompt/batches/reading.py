"""The rows of a file of prompts: text, CSV or JSON Lines, read once from front to back and never held whole.

Nobody vouches for the file: every length is bounded, and what is wrong with one row is that row's error and no other's. Text: a prompt a
line; blank lines and lines that begin with `#` are passed over, and `\\#` begins a prompt with that sign. CSV: a header with a `prompt`
column, commas, semicolons or tabs; a cell in quotation marks may hold them and line breaks. JSON Lines: an object or a string a line.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from itertools import chain
from pathlib import PurePath
from typing import Any, BinaryIO, NoReturn

from softprompt.batches import Format
from softprompt.errors import FileRefused

ENDINGS: dict[str, Format] = {".txt": "text", ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
LARGEST = 1 << 30  # bytes of a file; standard input may never end
LONGEST_LINE = 2 << 20  # bytes; the longest prompt that is read, with every character as a JSON escape, has 1.2 MB
LOOKED_AT = 1 << 16  # bytes, from which it is seen whether a file is text at all
DELIMITERS = ",;\t"
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
MOST_TOLD = 8  # columns that are not used, in a note


@dataclass(frozen=True)
class Row:
    """What stands in one row: the `line` where it begins, from 1, its values by key ("prompt" among them), or what is wrong with it."""

    line: int
    values: dict[str, Any]
    error: str = ""


@dataclass
class Keys:
    """Which keys a row may have. One that is nearly a known one is taken for a mistake, any other is the reader's own business."""

    known: frozenset[str]
    prompt: str = "prompt"  # the column that holds it
    unused: list[str] = field(default_factory=list)

    def known_as(self, key: str) -> str:
        """The known key, or "" for one that is not used. Raises KeyError with a message for one that looks misspelled."""
        if key == self.prompt:
            return "prompt"
        plain = key.strip().lower().replace("-", "_").replace(" ", "_")
        if plain in self.known or (plain == "prompt" and self.prompt == "prompt"):
            return plain
        if close := get_close_matches(plain[:40], self.known, 1, 0.8):
            raise KeyError(f"{key[:40]!r} is no setting: is {close[0]!r} meant? A column of another meaning needs another name")
        if key not in self.unused and len(self.unused) < MOST_TOLD:
            self.unused.append(key[:40])
        return ""


def read_rows(source: BinaryIO, name: str, keys: Keys, format: Format | None = None) -> Iterator[Row]:
    """The rows of `source`, which `name` names in messages; `format` None recognises it. Raises FileRefused for what is no such file."""
    lines = _lines(source, name)
    head = next(lines, (1, ""))
    while head[1] is not None and not head[1].strip():  # blank lines before the first row say nothing
        if (following := next(lines, None)) is None:
            raise FileRefused(f"{name} is empty: a prompt a line is expected, or CSV or JSON Lines with prompts in them")
        head = following
    readers: dict[Format, Callable[..., Iterator[Row]]] = {"text": _text, "csv": _csv, "jsonl": _jsonl}
    return readers[format or recognised(name, head[1] or "", keys)](chain([head], lines), name, keys)


def recognised(name: str, head: str, keys: Keys) -> Format:
    """By the file's name, else by its first line that is not blank."""
    if known := ENDINGS.get(PurePath(name).suffix.lower()):
        return known
    if head.lstrip().startswith("{"):
        return "jsonl"
    # a prompt may have commas, and a "prompt" between them: a header is made of known words alone
    cells = _cells(head, _delimiter(head, keys.prompt))
    plain = {cell.strip().lower().replace("-", "_") for cell in cells if cell != keys.prompt}
    return "csv" if keys.prompt in cells and plain <= keys.known else "text"


def _lines(source: BinaryIO, name: str) -> Iterator[tuple[int, str | None]]:
    """(number from 1, text) of every line, None for one that is too long; bytes that are no UTF-8 become surrogates, which rows refuse."""
    head, size = list[bytes](), 0
    while size < LOOKED_AT and (raw := source.readline(LONGEST_LINE + 1)):
        head.append(raw)
        size += len(raw)
    _check_is_text(head, name)
    total = 0
    for number, raw in enumerate(chain(head, iter(partial(source.readline, LONGEST_LINE + 1), b"")), 1):
        total += len(raw)
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        too_long = len(raw) > LONGEST_LINE
        while too_long and raw and not raw.endswith(b"\n"):  # the rest of it is passed over, a piece at a time
            raw = source.readline(LONGEST_LINE)
            total += len(raw)
            _check_size(total, name)
        _check_size(total, name)
        yield number, None if too_long else raw.decode("utf-8", "surrogateescape")


def _check_is_text(head: list[bytes], name: str) -> None:
    """Raises FileRefused by the file's first lines: a bad one among good ones is a row's error, but what is no text has no rows."""
    if not head:
        return
    if head[0].startswith(WIDE_MARKS):
        raise FileRefused(f"{name} is UTF-16 or UTF-32: save it as UTF-8")
    told = [line for line in head if line.strip()]
    if b"\0" not in head[0] and 2 * sum(map(_is_bad, told)) <= len(told):
        return
    raw = b"".join(head)
    found, at = ("a NUL", raw.find(0)) if b"\0" in raw else ("no UTF-8", _first_bad(raw))
    raise FileRefused(
        f"{name} is no text: byte {at + 1:,} is {found}. A text file, CSV or JSON Lines is expected; "
        "one in another encoding must be saved as UTF-8 first"
    )


def _is_bad(line: bytes) -> bool:
    return b"\0" in line or _first_bad(line) >= 0


def _first_bad(raw: bytes) -> int:
    """The place of the first byte that is no UTF-8, -1 where there is none; where a line that is too long was cut, a character may be too."""
    try:
        codecs.utf_8_decode(raw, "strict", False)
    except UnicodeDecodeError as error:
        return error.start
    return -1


def _check_size(total: int, name: str) -> None:
    if total > LARGEST:
        raise FileRefused(f"{name} has more than {LARGEST >> 20:,} MiB, the most that is read: split it")


def _too_long(line: int) -> Row:
    return Row(line, {}, f"the line has more than {LONGEST_LINE:,} bytes")


def _text(lines: Iterator[tuple[int, str | None]], _name: str, _keys: Keys) -> Iterator[Row]:
    for number, text in lines:
        if text is None:
            yield _too_long(number)
        elif (prompt := text.strip()) and not prompt.startswith("#"):
            yield Row(number, {"prompt": prompt[1:] if prompt.startswith("\\#") else prompt})


def _jsonl(lines: Iterator[tuple[int, str | None]], _name: str, keys: Keys) -> Iterator[Row]:
    for number, text in lines:
        if text is None:
            yield _too_long(number)
        elif text.strip():
            try:
                yield row_of(number, json.loads(text, parse_constant=_no_number), keys)
            except (ValueError, RecursionError) as error:  # nested too deeply, numbers of thousands of digits
                yield Row(number, {}, f"it is no JSON: {error}")


def row_of(number: int, value: Any, keys: Keys) -> Row:
    """The row that a value is: a prompt, or a mapping with one."""
    if isinstance(value, str):
        return Row(number, {"prompt": value})
    if not isinstance(value, Mapping):
        what = "a list: write each of its items in a line of its own" if isinstance(value, list) else f"{value!r:.40}"
        return Row(number, {}, f"an object or a string is expected; this is {what}")
    try:
        return Row(number, {known: inner for key, inner in value.items() if (known := keys.known_as(str(key)))})
    except KeyError as error:
        return Row(number, {}, str(error.args[0]))


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON's")


def _csv(lines: Iterator[tuple[int, str | None]], name: str, keys: Keys) -> Iterator[Row]:
    here = too_long = 0

    def texts() -> Iterator[str]:
        nonlocal here, too_long
        for number, text in lines:
            here = number
            if text is None:
                too_long = number
            yield "\n" if text is None else text

    feed = texts()
    head = next(feed)
    delimiter = _delimiter(head, keys.prompt)
    columns = _header(head, delimiter, name, keys)
    rows = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        begins = here + 1
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield Row(begins, {}, f"it is no CSV: {error} (is a quotation mark missing, or one inside a cell not doubled?)")
            continue
        if too_long >= begins:
            yield _too_long(too_long)
        elif len(cells) > len(columns):
            yield Row(
                begins,
                {},
                f"it has {len(cells)} cells, the header {len(columns)}: a cell with {delimiter!r} needs quotation marks",
            )
        elif any(cell.strip() for cell in cells):
            yield Row(begins, {key: cell for key, cell in zip(columns, cells, strict=False) if key and (cell or key == "prompt")})


def _header(head: str, delimiter: str, name: str, keys: Keys) -> list[str]:
    """The known key of every column, "" for one that is not used. Raises FileRefused."""
    cells = _cells(head, delimiter)
    try:
        columns = [keys.known_as(cell) for cell in cells]
    except KeyError as error:
        raise FileRefused(f"{name}: {error.args[0]}") from error
    used = [column for column in columns if column]
    if "prompt" not in columns:
        told = ", ".join(cell[:40] for cell in cells[:MOST_TOLD])
        raise FileRefused(
            f"{name} has no column {keys.prompt!r} in its first line, but {told}: `--column NAME` says which one holds the prompts"
        )
    if twice := next((column for column in used if used.count(column) > 1), ""):
        raise FileRefused(f"{name} has two columns {twice!r}")
    return columns


def _delimiter(head: str, prompt: str) -> str:
    """The first that makes a cell of the prompt's column, else the comma."""
    return next((one for one in DELIMITERS if prompt in _cells(head, one)), ",")


def _cells(head: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([head], delimiter=delimiter, strict=True), [])]
    except csv.Error:
        return []
