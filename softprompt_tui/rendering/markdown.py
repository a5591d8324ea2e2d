"""Render Markdown as lines of a terminal. Headings are at the left, and code has no background or syntax colors."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement, TableElement
from rich.segment import Segment
from rich.style import StyleType
from rich.table import Table
from rich.theme import Theme

INDENT = "  "
MAX_WIDTH = 100  # longer lines are hard to read
STYLES: Mapping[str, StyleType] = {
    "markdown.h1": "bold underline",
    "markdown.h2": "bold",
    "markdown.h3": "bold",
    "markdown.h4": "bold",
    "markdown.code": "cyan",
    "markdown.code_block": "cyan",
    "markdown.item.bullet": "dim",
    "markdown.item.number": "dim",
    "markdown.link": "underline",
    "markdown.link_url": "underline",
    "markdown.table.header": "bold",
    "markdown.table.border": "dim",
}


class _LeftHeading(Heading):
    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _PlainCode(CodeBlock):
    """Code in one style, indented by two columns. Long lines wrap instead of being cut."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        style, width = console.get_style("markdown.code_block"), options.max_width - len(INDENT)
        for line in str(self.text).rstrip().splitlines():
            # rich would drop the spaces at the beginning of a line
            for part in textwrap.wrap(line, width, break_on_hyphens=False) or [""]:
                yield Segment(INDENT + part, style)
                yield Segment.line()


class _FoldedTable(TableElement):
    """A table without lines around it. Long words wrap within their column instead of being cut."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                table.show_edge = False
                for column in table.columns:
                    column.overflow = "fold"
            yield table


class _Page(Markdown):
    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _LeftHeading,
        "fence": _PlainCode,
        "code_block": _PlainCode,
        "table_open": _FoldedTable,
    }


def render_lines(text: str, width: int, styles: Mapping[str, StyleType] = STYLES) -> list[list[Segment]]:
    """Render Markdown. Lines have no trailing spaces, and there is no empty line at either end."""
    console = Console(width=max(20, min(width, MAX_WIDTH)), theme=Theme(styles), emoji=False, force_terminal=True)
    lines = [_strip(line) for line in console.render_lines(_Page(text, hyperlinks=False), pad=False)]
    while lines and not lines[-1]:
        lines.pop()
    while lines and not lines[0]:
        lines.pop(0)
    return lines


def _strip(line: list[Segment]) -> list[Segment]:
    parts = list(line)
    while parts and not parts[-1].text.strip():
        parts.pop()
    if parts:
        last = parts[-1]
        parts[-1] = last._replace(text=last.text.rstrip())
    return parts
