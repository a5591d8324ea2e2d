"""Read a file of prompts (text, CSV or JSON Lines) in one pass, without loading all of it into memory.

The file is untrusted: every length is bounded, and a malformed row is an error for that row only. Lines end with LF,
CRLF, or CR alone (written by older Mac programs).

Text: one prompt per line. Blank lines and lines that start with `#` are skipped; `\\#` starts a prompt with a `#`.
From a line of options for AUTOMATIC1111's "prompts from file" (`--prompt "a fox" --steps 20`), only the prompt is used,
because the other options are sampler settings.

CSV: a header with a `prompt` column. The delimiter is a comma, semicolon or tab, unless a first line such as `sep=;`
(from Excel) sets another. A quoted cell can contain delimiters and line breaks. An AUTOMATIC1111 styles file has the
header `name,prompt,negative_prompt`.

JSON Lines: one object or string per line.
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
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, BinaryIO, Literal, NoReturn

from softprompt.argument_types import describe, nearest_name
from softprompt.errors import FileRefused, shorten, wording
from softprompt.library.names import clean_name

Format = Literal["text", "csv", "jsonl"]
FORMAT_BY_SUFFIX: dict[str, Format] = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
MAX_FILE_BYTES = 1 << 30  # needed because standard input may never end
MAX_LINE_BYTES = 2 << 20  # the longest valid prompt takes 1.2 MB if every character is a JSON escape
MAX_RECORD_LENGTH = 1 << 17  # characters of a multi-line CSV row; a longer row has an unclosed quotation mark
MAX_OPTIONS_LENGTH = 1 << 18  # characters of a line of options; splitting 2 MiB takes seconds
SNIFF_BYTES = 1 << 16  # size of the start of the file that must look like text
DELIMITERS = ",;\t"
SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)
LINE_END = re.compile(rb"\r\n|\r|\n")
STYLE_HEADER = ("name", "prompt", "negative_prompt")
PLACEHOLDER = re.compile(r"\{prompt\}\s*,?|,\s*\{prompt\}\s*$")  # stands for the prompt that a style is applied to
WIDE_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
MAX_COLUMNS_SHOWN = 8  # in a message


@dataclass(frozen=True)
class Row:
    """A row that starts in `line` (from 1): its values by key, including "prompt", or an error."""

    line: int
    values: dict[str, Any]
    error: str = ""


@dataclass
class RowKeys:
    """The keys that a row can have.

    Attributes:
        prompt: the column that holds the prompt.
        strict: whether an unknown key is an error, as in a caller's mapping. In a file, only a key that looks like a
            misspelled known key is an error.
        unused: the unknown keys of a file, which are ignored.
        notes: other remarks for the user.
    """

    known: frozenset[str]
    prompt: str = "prompt"
    strict: bool = False
    unused: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def resolve(self, key: str) -> str:
        """Return the known key, or "" if the key is ignored. Raises KeyError with a message for a wrong key."""
        if self.is_prompt(key):
            return "prompt"
        normalized = _normalize(key)
        if normalized in self.known:
            return normalized
        if self.strict:
            close = nearest_name(normalized, [self.prompt, *sorted(self.known)])
            hint = f"Did you mean {close!r}?" if close else f"Use {self.prompt}, {', '.join(sorted(self.known))}."
            raise KeyError(f"{shorten(key)!r} is not a setting. {hint}")
        if matches := get_close_matches(normalized[:40], self.known, 1, 0.8):
            raise KeyError(f"{key[:40]!r} is not a setting; did you mean {matches[0]!r}? If not, rename the column.")
        self.note_unused(key)
        return ""

    def is_prompt(self, key: str) -> bool:
        return key == self.prompt or self.prompt == _normalize(key) == "prompt"

    def note_unused(self, key: str) -> None:
        if key[:40] not in self.unused and len(self.unused) < MAX_COLUMNS_SHOWN:
            self.unused.append(key[:40])


def _normalize(key: str) -> str:
    return key.strip().lower().replace("-", "_").replace(" ", "_")


def read_rows(source: BinaryIO, name: str, keys: RowKeys, format: Format | None = None) -> Iterator[Row]:
    """Yield the rows of a file.

    Args:
        name: the file's name, for messages and to detect the format.
        format: the file format, or None to detect it.

    Raises:
        FileRefused: the file as a whole cannot be read.
    """
    lines = _read_lines(source, name)
    first = next(lines, (1, ""))
    while first[1] is not None and not first[1].strip():  # skip blank lines before the first row
        if (next_line := next(lines, None)) is None:
            raise FileRefused(f"{name} is empty. Use a file with one prompt per line, a CSV file or JSON Lines.")
        first = next_line
    readers: dict[Format, Callable[..., Iterator[Row]]] = {"text": _text_rows, "csv": _csv_rows, "jsonl": _jsonl_rows}
    return readers[format or detect_format(name, first[1] or "", keys)](chain([first], lines), name, keys)


def detect_format(name: str, line: str, keys: RowKeys) -> Format:
    """Detect the format from the file's name or, if that is not enough, from its first non-blank line."""
    if by_suffix := FORMAT_BY_SUFFIX.get(PurePath(name).suffix.lower()):
        return by_suffix
    if line.lstrip().startswith("{"):
        return "jsonl"
    if SEPARATOR.fullmatch(line):
        return "csv"
    # a prompt may also contain "prompt" between commas, so only a line of known keys is a header
    cells = _split_cells(line, _find_delimiter(line, keys.prompt))
    other_cells = {cell.strip().lower().replace("-", "_") for cell in cells if cell != keys.prompt}
    return "csv" if keys.prompt in cells and other_cells <= keys.known else "text"


def _read_lines(source: BinaryIO, name: str) -> Iterator[tuple[int, str | None]]:
    """Yield the number (from 1) and text of every line. The text is None if the line is too long.

    Invalid UTF-8 bytes become surrogates, which later make the row an error.
    """
    head, size = list[bytes](), 0
    while size < SNIFF_BYTES and (raw := source.readline(MAX_LINE_BYTES + 1)):
        head.append(raw)
        size += len(raw)
    _check_is_text(b"".join(head).splitlines(keepends=True), name)
    pieces = _check_size(chain(head, iter(partial(source.readline, MAX_LINE_BYTES + 1), b"")), name)
    lines = _split_at_cr(pieces) if _has_cr_ends(b"".join(head)) else _split_at_lf(pieces)
    for number, line in enumerate(lines, 1):
        if line is not None and number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        yield number, None if line is None else line.decode("utf-8", "surrogateescape")


def _has_cr_ends(head: bytes) -> bool:
    """Return whether lines end with CR alone. In such a file, LF can still be a line break inside a cell."""
    return b"\r\n" not in head and head.find(b"\r") >= 0 and head.count(b"\r") >= head.count(b"\n")


def _split_at_lf(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield every line, or None if it is too long. The rest of a long line is skipped piece by piece."""
    for piece in pieces:
        if len(piece) <= MAX_LINE_BYTES:
            yield piece
            continue
        while not piece.endswith(b"\n") and (more := next(pieces, b"")):
            piece = more
        yield None


def _split_at_cr(pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    """Yield every line of text with CR, CRLF or LF line ends, or None if it is too long. Line ends become LF."""
    line, pending_cr = bytearray(), b""
    chunks = (piece[start : start + SNIFF_BYTES] for piece in pieces for start in range(0, len(piece), SNIFF_BYTES))
    for chunk in chunks:
        piece = pending_cr + chunk
        pending_cr = b"\r" if piece.endswith(b"\r") else b""  # the next piece can start with its LF
        first, *rest = LINE_END.split(piece[: len(piece) - len(pending_cr)])
        line += first
        for text in rest:
            yield bytes(line) + b"\n" if len(line) < MAX_LINE_BYTES else None
            line[:] = text
        del line[MAX_LINE_BYTES:]
    if line or pending_cr:
        yield bytes(line) + b"\n" if len(line) < MAX_LINE_BYTES else None


def _check_is_text(head: list[bytes], name: str) -> None:
    """Raise FileRefused if most of the first lines are not text. A single bad line is only an error for its row."""
    if not head:
        return
    if head[0].startswith(WIDE_BOMS):
        raise FileRefused(f"{name} is UTF-16 or UTF-32. Save it as UTF-8.")
    lines = [line for line in head if line.strip()]
    if b"\0" not in head[0] and 2 * sum(map(_is_invalid, lines)) <= len(lines):
        return
    raw = b"".join(head)
    problem, offset = ("a NUL", raw.find(0)) if b"\0" in raw else ("not UTF-8", _find_invalid_byte(raw))
    raise FileRefused(
        f"{name} is not text: byte {offset + 1:,} is {problem}. Use a text file, CSV or JSON Lines. "
        "If the encoding is not UTF-8, save the file as UTF-8 first."
    )


def _is_invalid(line: bytes) -> bool:
    return b"\0" in line or _find_invalid_byte(line) >= 0


def _find_invalid_byte(raw: bytes) -> int:
    """Return the offset of the first invalid UTF-8 byte, or -1. An incomplete character at the end is valid."""
    try:
        codecs.utf_8_decode(raw, "strict", False)
    except UnicodeDecodeError as error:
        return error.start
    return -1


def _check_size(pieces: Iterator[bytes], name: str) -> Iterator[bytes]:
    """Yield the pieces of a file. Raises FileRefused if the file is too large."""
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > MAX_FILE_BYTES:
            raise FileRefused(f"{name} has more than {MAX_FILE_BYTES >> 20:,} MiB, the limit for a batch. Split it.")
        yield piece


def _too_long_row(line: int) -> Row:
    return Row(line, {}, f"the line has more than {MAX_LINE_BYTES:,} bytes")


def _text_rows(lines: Iterator[tuple[int, str | None]], _name: str, keys: RowKeys) -> Iterator[Row]:
    for number, text in lines:
        if text is None:
            yield _too_long_row(number)
        elif (prompt := text.strip()).startswith("--") and "--prompt" in prompt:
            yield _parse_options(number, prompt, keys)
        elif prompt and not prompt.startswith("#"):
            yield Row(number, {"prompt": prompt[1:] if prompt.startswith("\\#") else prompt})


def _parse_options(number: int, text: str, keys: RowKeys) -> Row:
    """Return the row for a line such as `--prompt "a fox" --seed 3`. Without --prompt, the whole line is the prompt."""
    if len(text) > MAX_OPTIONS_LENGTH:
        return Row(
            number,
            {},
            f"the line has more than {MAX_OPTIONS_LENGTH:,} characters, the limit for a line of options",
        )
    try:
        words = shlex.split(text)
    except ValueError as error:
        return Row(number, {}, f"its options cannot be parsed: {error}. Put matching quotation marks around values.")
    values: dict[str, list[str]] = {}
    option = ""
    for word in words:
        # the prompt itself may start with --
        if word.startswith("--") and (option != "--prompt" or values[option]):
            option, _, value = word.partition("=")
            values[option] = [value] * bool(value)
        else:
            values[option].append(word)
    if "--prompt" not in values:
        return Row(number, {"prompt": text})
    for option in values:
        if option != "--prompt":
            keys.note_unused(option)
    return Row(number, {"prompt": " ".join(values["--prompt"])})


def _jsonl_rows(lines: Iterator[tuple[int, str | None]], _name: str, keys: RowKeys) -> Iterator[Row]:
    for number, text in lines:
        if text is None:
            yield _too_long_row(number)
        elif text.strip():
            try:
                yield parse_row(number, json.loads(text, parse_constant=_reject_constant), keys)
            except (ValueError, RecursionError) as error:  # nested too deeply, or a number with thousands of digits
                yield Row(number, {}, f"it is not valid JSON: {error}")


def parse_row(number: int, value: Any, keys: RowKeys) -> Row:
    """Return the row for a prompt or for a mapping with a prompt."""
    if isinstance(value, str):
        return Row(number, {"prompt": value})
    if keys.strict and not isinstance(value, Mapping):
        return Row(number, {}, f"it must be a mapping or a string, but is {describe(value)}")
    if keys.strict and not any(keys.is_prompt(str(key)) for key in value):
        shown = ", ".join(shorten(str(key)) for key in islice(value, MAX_COLUMNS_SHOWN)) or "none"
        choose = "Use column='NAME' to choose another."
        return Row(number, {}, f"the mapping has no key {keys.prompt!r}. Its keys are: {shown}. {choose}")
    if not isinstance(value, Mapping):
        shown = "a list. Put each item on its own line." if isinstance(value, list) else f"{value!r:.40}"
        return Row(number, {}, f"it must be an object or a string, but is {shown}")
    try:
        return Row(number, {resolved: inner for key, inner in value.items() if (resolved := keys.resolve(str(key)))})
    except KeyError as error:
        return Row(number, {}, str(error.args[0]))


def _reject_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")


def _csv_rows(lines: Iterator[tuple[int, str | None]], name: str, keys: RowKeys) -> Iterator[Row]:
    feed = _CsvLines(lines, name)
    header = next(feed)
    if separator := SEPARATOR.fullmatch(header):
        header = next((text for text in feed if text.strip()), "")
    delimiter = separator[1] if separator else _find_delimiter(header, keys.prompt)
    columns, is_style = (
        _parse_header(header, delimiter, name, keys),
        tuple(_split_cells(header, delimiter)) == STYLE_HEADER,
    )
    rows = csv.reader(feed, delimiter=delimiter, strict=True)
    while True:
        line = feed.begin_record()
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            hint = "Is a quotation mark missing, or not doubled inside a cell?"
            location = f" The quotation mark on line {feed.opened:,} is not closed." if feed.opened else ""
            yield Row(line, {}, f"it is not valid CSV: {error}. {hint}{location}")
            continue
        if feed.too_long >= line:
            yield _too_long_row(feed.too_long)
        elif len(cells) > len(columns):
            problem = f"it has {len(cells)} cells, but the header has {len(columns)}"
            yield Row(line, {}, f"{problem}. Quote any cell that contains {delimiter!r}.")
        elif any(cell.strip() for cell in cells):
            values = {key: cell for key, cell in zip(columns, cells, strict=False) if key and (cell or key == "prompt")}
            if not is_style:
                yield Row(line, values)
            elif (style := _parse_style(values, keys))["prompt"]:
                yield Row(line, style)


class _CsvLines:
    """Iterator over the lines of a CSV file. Tracks where each row starts and where an open quotation mark began."""

    def __init__(self, lines: Iterator[tuple[int, str | None]], name: str) -> None:
        self.name = name
        self.too_long = 0  # the last line that was too long
        self.opened = 0  # the line of an open quotation mark, or 0 if there is none
        self._lines = lines
        self._number = self._length = self._row_start = 0

    def begin_record(self) -> int:
        """Start a new row. Return the number of its first line."""
        self._length, self.opened, self._row_start = 0, 0, self._number + 1
        return self._row_start

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line, or an empty line if it is too long. Raises FileRefused if the row does not end."""
        self._number, text = next(self._lines)
        if text is None:
            self.too_long, text = self._number, "\n"
        self._length += len(text)
        if self._length > MAX_RECORD_LENGTH and self._number > self._row_start:
            open_mark = f"opened on line {self.opened:,} is not closed"
            problem = open_mark if self.opened else f"after line {self._row_start:,} is misplaced"
            raise FileRefused(
                f"{self.name}: a quotation mark {problem} (the row that starts on line {self._row_start:,} has more "
                f"than {MAX_RECORD_LENGTH:,} characters). Close it, and write quotation marks inside a cell twice."
            )
        if text.count('"') % 2:
            self.opened = 0 if self.opened else self._number
        return text


def _parse_style(values: dict[str, Any], keys: RowKeys) -> dict[str, Any]:
    """Return the values for an AUTOMATIC1111 style, with a valid name and without the `{prompt}` placeholder."""
    text = values.get("prompt", "")
    prompt = " ".join(PLACEHOLDER.sub(" ", text).split()).strip(" ,")
    if "{prompt}" in text and prompt:
        _add_note(keys, "{prompt} in a style is a placeholder for another prompt and was removed")
    if not prompt:
        _add_note(keys, "styles without a prompt of their own were skipped")
    return {"name": clean_name(values.get("name", "")), "prompt": prompt}


def _add_note(keys: RowKeys, note: str) -> None:
    if note not in keys.notes:
        keys.notes.append(note)


def _parse_header(header: str, delimiter: str, name: str, keys: RowKeys) -> list[str]:
    """Return the known key for every column, or "" if the column is ignored. Raises FileRefused."""
    cells = _split_cells(header, delimiter)
    try:
        columns = [keys.resolve(cell) for cell in cells]
    except KeyError as error:
        raise FileRefused(f"{name}: {error.args[0]}") from error
    used = [column for column in columns if column]
    if "prompt" not in columns:
        shown = ", ".join(cell[:40] for cell in cells[:MAX_COLUMNS_SHOWN])
        choose = wording("`--column NAME`", "column='NAME'")
        raise FileRefused(
            f"{name} has no column named {keys.prompt!r}. Its columns are {shown}. Use {choose} to choose one."
        )
    if duplicate := next((column for column in used if used.count(column) > 1), ""):
        raise FileRefused(f"{name} has two columns named {duplicate!r}")
    return columns


def _find_delimiter(header: str, prompt: str) -> str:
    """Return the first delimiter that makes the prompt column a separate cell, or the comma if none does."""
    return next((delimiter for delimiter in DELIMITERS if prompt in _split_cells(header, delimiter)), ",")


def _split_cells(line: str, delimiter: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, strict=True), [])]
    except csv.Error:
        return []
