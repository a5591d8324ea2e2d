"""Help that fits the terminal. Click wraps paragraphs; this module also wraps examples, tables and lists."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

import click

from softprompt_tui import PROGRAM

VERBATIM = "\b\n"  # click does not rewrap a paragraph that starts with this
NARROW_COLUMNS = 78
NARROW_TERM_COLUMNS = 20  # longer options get a line of their own
_WORD = re.compile(r'(?:"[^"]*"|\S)+')
_TERM = re.compile(r" *\S+(?: \S+)* {2,}(?=\S)")


class HelpFormatter(click.HelpFormatter):
    """Keeps every line within the terminal's width."""

    def write_text(self, text: str) -> None:
        width = self.width - self.current_indent
        super().write_text("\n\n".join(_fit_paragraph(paragraph, width) for paragraph in text.split("\n\n")))

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl(rows, NARROW_TERM_COLUMNS if self.width < NARROW_COLUMNS else col_max, col_spacing)


class HelpContext(click.Context):
    """The context of every command, because click takes the formatter from it."""

    formatter_class = HelpFormatter


def fit_help(command: click.Command) -> None:
    """Make the help of a command and its subcommands fit the terminal."""
    command.context_class = HelpContext
    if isinstance(command, click.Group):
        for subcommand in command.commands.values():
            fit_help(subcommand)
            # without this, click cuts the first sentence where the line ends
            subcommand.short_help = " ".join(re.split(r"(?<=\.)\s", subcommand.help or "", maxsplit=1)[0].split())


def _fit_paragraph(paragraph: str, width: int) -> str:
    if not paragraph.startswith(VERBATIM):
        return paragraph
    lines = paragraph.removeprefix(VERBATIM).split("\n")
    return VERBATIM + "\n".join(fitted for row in _rows(lines) for fitted in _fit_row(row, width))


def _rows(lines: list[str]) -> Iterator[list[str]]:
    """Group the lines of a table by row. A line that is indented to the text of a row continues that row."""
    row: list[str] = []
    for line in lines:
        if row and (term := _TERM.match(row[0])) and line.startswith(" " * term.end()):
            row.append(line)
            continue
        if row:
            yield row
        row = [line]
    yield row


def _fit_row(row: list[str], width: int) -> list[str]:
    if max(map(len, row)) <= width:
        return row
    if PROGRAM in row[0]:
        return _fit_command(row[0], width)
    term = _TERM.match(row[0])
    text = " ".join([row[0], *map(str.strip, row[1:])])
    indent = " " * (term.end() if term else len(text) - len(text.lstrip()))
    return textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _fit_command(command: str, width: int) -> list[str]:
    r"""Break a shell command into lines that end with \. An option stays with its value, `>` with its file."""
    units: list[str] = []
    for word in _WORD.findall(command):
        if units and re.fullmatch(r"-\S*|[|>]", units[-1]) and (units[-1] in "|>" or word[0] not in "-|>"):
            units[-1] += f" {word}"
        else:
            units.append(word)
    indent = " " * (len(command) - len(command.lstrip()))
    lines = [indent + units[0]]
    for number, unit in enumerate(units[1:], 2):
        reserved = 0 if number == len(units) else len(" \\")
        if len(lines[-1]) + 1 + len(unit) + reserved <= width:
            lines[-1] += f" {unit}"
        else:
            lines[-1] += " \\"
            lines.append(f"{indent}    {unit}")
    return lines
