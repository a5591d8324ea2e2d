"""The rows of a file of prompts: text, CSV or JSON Lines, read once from front to back and never held whole.

Nobody vouches for the file: every length is bounded, and what is wrong with one row is that row's error and no other's.
Lines end with LF, CRLF or, as older programs on the Mac write them, with CR alone.

Text: a prompt a line; blank lines and lines that begin with `#` are passed over, and `\\#` begins a prompt with that sign.
Of a line of options, as AUTOMATIC1111's "prompts from file" reads them (`--prompt "a fox" --steps 20`), only the prompt
counts: the other options say how a picture is sampled. CSV: a header with a `prompt` column; commas, semicolons, tabs, or
what a first line such as `sep=;` says, which is Excel's; a cell in quotation marks may hold them and line breaks. A header
`name,prompt,negative_prompt` is that of AUTOMATIC1111's styles. JSON Lines: an object or a string a line.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from itertools import chain
from pathlib import PurePath
from typing import Any, BinaryIO, Literal, NoReturn

from softprompt.errors import FileRefused
from softprompt.library.names import tidied

Format = Literal["text", "csv", "jsonl"]
ENDINGS: dict[str, Format] = {".txt": "text", ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
MAX_FILE_BYTES = 1 << 30  # bytes of a file; standard input may never end
MAX_LINE_BYTES = 2 << 20  # bytes; the longest prompt that is read, with every character as a JSON escape, has 1.2 MB
MAX_RECORD_BYTES = 1 << 17  # characters of a CSV row of several lines: longer ones come of a quotation mark too few
MAX_OPTIONS_LENGTH = 1 << 18  # characters of a line of options: parting one of 2 MiB takes seconds
LOOKED_AT = 1 << 16  # bytes, from which it is seen whether a file is text at all
DELIMITERS = ",;\t"
SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)
LINE_END = re.compile(rb"\r\n|\r|\n")
STYLE = ("name", "prompt", "negative_prompt")
PLACE = re.compile(r"\{prompt\}\s*,?|,\s*\{prompt\}\s*$")  # where a style has the prompt that it is given to
WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
MAX_CELLS_SHOWN = 8  # columns that are not used, in a note


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
    notes: list[str] = field(default_factory=list)  # what else to tell, once

    def known_as(self, key: str) -> str:
        """The known key, or "" for one that is not used. Raises KeyError with a message for one that looks misspelled."""
        if key == self.prompt:
            return "prompt"
        plain = key.strip().lower().replace("-", "_").replace(" ", "_")
        if plain in self.known or (plain == "prompt" and self.prompt == "prompt"):
            return plain
        if close := get_close_matches(plain[:40], self.known, 1, 0.8):
            raise KeyError(
                f"{key[:40]!r} is no setting: is {close[0]!r} meant? A column of another meaning needs another name"
            )
        self.pass_over(key)
        return ""

    def pass_over(self, key: str) -> None:
        """Remember a key that is not used, to tell it once."""
        if key[:40] not in self.unused and len(self.unused) < MAX_CELLS_SHOWN:
            self.unused.append(key[:40])


def read_rows(source: BinaryIO, name: str, keys: Keys, format: Format | None = None) -> Iterator[Row]:
    """The rows of `source`, which `name` names in messages; `format` None recognises it. Raises FileRefused for what is no such file."""
    lines = _lines(source, name)
    head = next(lines, (1, ""))
    while head[1] is not None and not head[1].strip():  # blank lines before the first row say nothing
        if (following := next(lines, None)) is None:
            raise FileRefused(
                f"{name} is empty: a prompt a line is expected, or CSV or JSON Lines with prompts in them"
            )
        head = following
    readers: dict[Format, Callable[..., Iterator[Row]]] = {"text": _text, "csv": _csv, "jsonl": _jsonl}
    return readers[format or recognised(name, head[1] or "", keys)](chain([head], lines), name, keys)


def recognised(name: str, head: str, keys: Keys) -> Format:
    """By the file's name, else by its first line that is not blank."""
    if known := ENDINGS.get(PurePath(name).suffix.lower()):
        return known
    if head.lstrip().startswith("{"):
        return "jsonl"
    if SEPARATOR.fullmatch(head):
        return "csv"
    # a prompt may have commas, and a "prompt" between them: a header is made of known words alone
    cells = _cells(head, _delimiter(head, keys.prompt))
    plain = {cell.strip().lower().replace("-", "_") for cell in cells if cell != keys.prompt}
    return "csv" if keys.prompt in cells and plain <= keys.known else "text"


def _lines(source: BinaryIO, name: str) -> Iterator[tuple[int, str | None]]:
    """(number from 1, text) of every line, None for one that is too long; bytes that are no UTF-8 become surrogates, which rows refuse."""
    head, size = list[bytes](), 0
    while size < LOOKED_AT and (raw := source.readline(MAX_LINE_BYTES + 1)):
        head.append(raw)
        size += len(raw)
    _check_is_text(b"".join(head).splitlines(keepends=True), name)
    pieces = _checked_size(chain(head, iter(partial(source.readline, MAX_LINE_BYTES + 1), b"")), name)
    lines = _ended_by_cr(pieces) if _has_cr_ends(b"".join(head)) else _ended_by_lf(pieces)
    for number, line in enumerate(lines, 1):
        if line is not None and number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        yield number, None if line is None else line.decode("utf-8", "surrogateescape")


def _has_cr_ends(head: bytes) -> bool:
    """Return whether lines end with CR alone; LF may then stand in cells of several lines."""
    return b"\r\n" not in head and head.find(b"\r") >= 0 and head.count(b"\r") >= head.count(b"\n")


def _ended_by_lf(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield every line, None for one that is too long: its rest is passed over, a piece at a time."""
    for piece in pieces:
        if len(piece) <= MAX_LINE_BYTES:
            yield piece
            continue
        while not piece.endswith(b"\n") and (following := next(pieces, b"")):
            piece = following
        yield None


def _ended_by_cr(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    """As `_ended_by_lf`, for lines that end with CR, CRLF or LF; each is yielded with LF."""
    line, last = bytearray(), b""
    parts = (piece[at : at + LOOKED_AT] for piece in pieces for at in range(0, len(piece), LOOKED_AT))
    for part in parts:
        piece = last + part
        last = b"\r" if piece.endswith(b"\r") else b""  # an LF can follow in the next piece
        first, *others = LINE_END.split(piece[: len(piece) - len(last)])
        line += first
        for other in others:
            yield bytes(line) + b"\n" if len(line) < MAX_LINE_BYTES else None
            line[:] = other
        del line[MAX_LINE_BYTES:]
    if line or last:
        yield bytes(line) + b"\n" if len(line) < MAX_LINE_BYTES else None


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


def _checked_size(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Pass on the pieces of a file. Raises FileRefused for one that is too large."""
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > MAX_FILE_BYTES:
            raise FileRefused(f"{name} has more than {MAX_FILE_BYTES >> 20:,} MiB, the most that is read: split it")
        yield piece


def _too_long(line: int) -> Row:
    return Row(line, {}, f"the line has more than {MAX_LINE_BYTES:,} bytes")


def _text(lines: Iterator[tuple[int, str | None]], _name: str, keys: Keys) -> Iterator[Row]:
    for number, text in lines:
        if text is None:
            yield _too_long(number)
        elif (prompt := text.strip()).startswith("--") and "--prompt" in prompt:
            yield _row_of_options(number, prompt, keys)
        elif prompt and not prompt.startswith("#"):
            yield Row(number, {"prompt": prompt[1:] if prompt.startswith("\\#") else prompt})


def _row_of_options(number: int, text: str, keys: Keys) -> Row:
    """Return the row of a line such as `--prompt "a fox" --seed 3`; without the option `--prompt` it is a prompt itself."""
    if len(text) > MAX_OPTIONS_LENGTH:
        return Row(
            number,
            {},
            f"the line has more than {MAX_OPTIONS_LENGTH:,} characters, the most that a line of options can have",
        )
    try:
        words = shlex.split(text)
    except ValueError as error:
        return Row(
            number, {}, f"its options cannot be parted ({error}): put each value into quotation marks of one kind"
        )
    values: dict[str, list[str]] = {}
    option = ""
    for word in words:
        # a prompt can begin with --
        if word.startswith("--") and (option != "--prompt" or values[option]):
            option, _, value = word.partition("=")
            values[option] = [value] * bool(value)
        else:
            values[option].append(word)
    if "--prompt" not in values:
        return Row(number, {"prompt": text})
    for option in values:
        if option != "--prompt":
            keys.pass_over(option)
    return Row(number, {"prompt": " ".join(values["--prompt"])})


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
    feed = _CsvLines(lines, name)
    head = next(feed)
    if separator := SEPARATOR.fullmatch(head):
        head = next((text for text in feed if text.strip()), "")
    delimiter = separator[1] if separator else _delimiter(head, keys.prompt)
    columns, is_style = _header(head, delimiter, name, keys), tuple(_cells(head, delimiter)) == STYLE
    rows = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        begins = feed.begin_record()
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            why = "is a quotation mark missing, or one inside a cell not doubled?"
            where = f". The one in line {feed.opened:,} is not closed" if feed.opened else ""
            yield Row(begins, {}, f"it is no CSV: {error} ({why}){where}")
            continue
        if feed.too_long >= begins:
            yield _too_long(feed.too_long)
        elif len(cells) > len(columns):
            what = f"it has {len(cells)} cells, the header {len(columns)}"
            yield Row(begins, {}, f"{what}: a cell with {delimiter!r} needs quotation marks")
        elif any(cell.strip() for cell in cells):
            values = {key: cell for key, cell in zip(columns, cells, strict=False) if key and (cell or key == "prompt")}
            if not is_style:
                yield Row(begins, values)
            elif (style := _style_of(values, keys))["prompt"]:
                yield Row(begins, style)


class _CsvLines:
    """The lines of a CSV file, each counted, so that a row knows where it begins and an open quotation mark is found."""

    def __init__(self, lines: Iterator[tuple[int, str | None]], name: str) -> None:
        self.name = name
        self.too_long = 0  # the last line that was
        self.opened = 0  # the line of a quotation mark that is still open, 0 where all are closed
        self._lines = lines
        self._number = self._length = self._begins = 0

    def begin_record(self) -> int:
        """Count from here on for a new row; return its line."""
        self._length, self.opened, self._begins = 0, 0, self._number + 1
        return self._begins

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line, an empty one for one that is too long. Raises FileRefused where a row has no end."""
        self._number, text = next(self._lines)
        if text is None:
            self.too_long, text = self._number, "\n"
        self._length += len(text)
        if self._length > MAX_RECORD_BYTES and self._number > self._begins:
            opens = f"opens in line {self.opened:,} and is not closed"
            where = opens if self.opened else f"is wrong after line {self._begins:,}"
            raise FileRefused(
                f"{self.name}: a quotation mark {where}: the row from line {self._begins:,} on has more than {MAX_RECORD_BYTES:,} "
                "characters. Close it, or double those inside a cell"
            )
        if text.count('"') % 2:
            self.opened = 0 if self.opened else self._number
        return text


def _style_of(values: dict[str, Any], keys: Keys) -> dict[str, Any]:
    """Return a row of AUTOMATIC1111's styles with a name that can be given, and without the place for another prompt."""
    text = values.get("prompt", "")
    prompt = " ".join(PLACE.sub(" ", text).split()).strip(" ,")
    if "{prompt}" in text and prompt:
        _note(keys, "{prompt} in a style stands for another prompt and is left out")
    if not prompt:
        _note(keys, "styles without a prompt of their own are passed over")
    return {"name": tidied(values.get("name", "")), "prompt": prompt}


def _note(keys: Keys, note: str) -> None:
    if note not in keys.notes:
        keys.notes.append(note)


def _header(head: str, delimiter: str, name: str, keys: Keys) -> list[str]:
    """The known key of every column, "" for one that is not used. Raises FileRefused."""
    cells = _cells(head, delimiter)
    try:
        columns = [keys.known_as(cell) for cell in cells]
    except KeyError as error:
        raise FileRefused(f"{name}: {error.args[0]}") from error
    used = [column for column in columns if column]
    if "prompt" not in columns:
        told = ", ".join(cell[:40] for cell in cells[:MAX_CELLS_SHOWN])
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
