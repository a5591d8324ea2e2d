"""A table of any length that renders only visible rows and requests missing ones a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from softprompt_tui.rendering.cells import fit_cell
from softprompt_tui.rendering.sanitize import sanitize

PAGE_ROWS = 100
MAX_CACHED_PAGES = 20
AGE_SECONDS = 10.0  # between updates of the ages in a table
LINES_FROM_HEIGHT = 9  # lines; in a lower table, rows of several lines would leave too few rows
SHOWN_MARK, CHOSEN_MARK = "▸", "●"
VERBS = OPEN, SHOW, RESTORE = "Open", "Show", "Restore"  # what enter does with a row


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        key: identifies the row.
        cells: one text per column.
        details: the row's further lines, where the table has room for them, with one text per column of each.
        is_dim: whether the row is of no use at present.
    """

    key: str
    cells: Sequence[str]
    details: Sequence[Sequence[str]] = ()
    is_dim: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        width: in cells; 0 means the remaining space.
        max_width: at most so much of the remaining space; 0 means all of it.
        from_width: minimum table width, in cells, at which the column is shown.
        tone: returns the color of a cell: "good", "going", "bad", or "".
        cut_middle: whether a long text loses its middle instead of its end.
    """

    title: str
    width: int
    right: bool = False
    from_width: int = 0
    tone: Callable[[str], str] | None = None
    cut_middle: bool = False
    max_width: int = 0


class Table(ScrollView, can_focus=True):
    """Rows of text under headings, with a cursor and marks. Rows have further lines if there are `details` and room.

    Posts PageRequested for missing rows, and Moved or Chosen when the user moves the cursor or chooses a row.

    Args:
        details: the columns of each further line of a row.
        lines: how many lines a row has even if some rows are then out of sight.
        verb: returns what enter does with the row under the cursor: one of VERBS, or "" for nothing.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("home,g", "end(-1)", "First", show=False),
        Binding("end,G", "end(1)", "Last", show=False),
        *(Binding("enter", f"choose('{verb}')", verb) for verb in VERBS),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--heading", "table--cursor", "table--mark", "table--waiting",
        "table--empty", "table--detail", "table--good", "table--going", "table--bad",
    }  # fmt: skip
    DEFAULT_CSS = """
    Table { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
    Table > .table--heading { color: $text-muted; }
    Table > .table--cursor { background: $primary-muted; color: $text; }
    Table:focus > .table--cursor { background: $primary; color: $background; text-style: bold; }
    Table > .table--mark { color: $accent; text-style: bold; }
    Table > .table--waiting { color: $text-disabled; }
    Table > .table--empty { color: $text-muted; }
    Table > .table--detail { color: $text-muted; }
    Table > .table--good { color: $text-success; }
    Table > .table--going { color: $text-primary; }
    Table > .table--bad { color: $text-error; }
    """

    cursor = reactive(0, repaint=False)

    class PageRequested(Message):
        """The table needs the rows of a page. Provide them with `fill`."""

        def __init__(self, table: Table, page: int) -> None:
            super().__init__()
            self.table, self.page = table, page

        @property
        def control(self) -> Table:
            return self.table

    class Moved(Message):
        """The cursor moved to another row."""

        def __init__(self, table: Table, row: int) -> None:
            super().__init__()
            self.table, self.row = table, row

        @property
        def control(self) -> Table:
            return self.table

    class Chosen(Moved):
        """The user chose a row with enter or a double click."""

    def __init__(
        self,
        columns: Sequence[Column],
        empty: str = "",
        id: str | None = None,
        details: Sequence[Sequence[Column]] = (),
        lines: int = 1,
        verb: Callable[[], str] = lambda: OPEN,
    ) -> None:
        super().__init__(id=id)
        self.details, self.lines, self.verb = details, lines, verb
        self.columns = columns
        self.empty = empty
        self.total = 0
        self.marked: set[str] = set()
        self._shown = ""  # key of the row that other panes show
        self._is_resetting = False
        self._pages: dict[int, Sequence[Row]] = {}
        self._requested: set[int] = set()

    @property
    def row_width(self) -> int:
        """The width of a row without the scrollbar, in cells."""
        return self.scrollable_content_region.width

    @property
    def row_height(self) -> int:
        """The lines of a row: as many as leave no row out of sight, but at least `lines`."""
        if self.size.height < LINES_FROM_HEIGHT or not self.details:
            return 1
        fitting = (self.size.height - 1) // max(1, self.total)
        return max(self.lines, min(1 + len(self.details), fitting))

    def _refresh_row(self, row: int) -> None:
        height = self.row_height
        self.refresh(Region(0, row * height + 1 - self.scroll_offset.y, self.row_width, height))

    def show_mark(self, key: str) -> None:
        """Mark the row that other panes show, instead of the previous one."""
        if key != self._shown:
            self._shown = key
            self.refresh()

    # contents

    def reset(self, total: int, cursor: int | None = None, is_new_list: bool = False) -> None:
        """Discard all rows and set the row count to `total`. Visible rows are requested again.

        The cursor keeps its place on the screen if possible; in a new list it moves to the middle.
        """
        before, self.total = self.total, total
        if bool(before) != bool(total):
            self.refresh_bindings()  # an empty table has fewer keys
        self._pages.clear()
        self._requested.clear()
        self._fit_virtual_size()
        self._is_resetting = True  # the user did not move the cursor, so do not post Moved
        self.cursor = max(0, min(self.cursor if cursor is None else cursor, total - 1))
        self._is_resetting = False
        self.call_after_refresh(self._show_cursor, is_new_list)  # the height may change in this refresh
        self.refresh()

    def _fit_virtual_size(self) -> None:
        self.virtual_size = Size(self.row_width, self.total * self.row_height + 1)

    def _show_cursor(self, centered: bool = False) -> None:
        height, top, lines = self.size.height - 1, self.scroll_offset.y, self.row_height
        first = self.cursor * lines  # line of the list
        if height <= 0:
            return
        if centered:
            top = first - (height // lines // 2) * lines
        elif first < top:
            top = first
        elif first + lines > top + height:
            top = first + lines - height
        self.scroll_to(y=top, animate=False, force=True, immediate=True)

    def fill(self, page: int, rows: Sequence[Row]) -> None:
        self._requested.discard(page)
        self._pages[page] = rows
        while len(self._pages) > MAX_CACHED_PAGES:
            del self._pages[max(self._pages, key=lambda number: abs(number - page))]
        self.refresh()

    def replace_row(self, row: int, contents: Row) -> None:
        """Replace a row, and redraw only this row."""
        rows = self._pages.get(row // PAGE_ROWS)
        if rows is not None and row % PAGE_ROWS < len(rows):
            number = row % PAGE_ROWS
            self._pages[row // PAGE_ROWS] = [*rows[:number], contents, *rows[number + 1 :]]
            self._refresh_row(row)

    def update_rows(self, page: int, rows: Sequence[Row]) -> None:
        """Replace the rows of a page that have changed, and redraw only these."""
        for i, (before, now) in enumerate(zip(self._pages.get(page, ()), rows, strict=False)):
            if before != now:
                self.replace_row(page * PAGE_ROWS + i, now)

    def row_key(self, row: int) -> str:
        """Return the key of a row, or "" if the row is not loaded."""
        rows = self._pages.get(row // PAGE_ROWS, ())
        return rows[row % PAGE_ROWS].key if 0 <= row < self.total and row % PAGE_ROWS < len(rows) else ""

    @property
    def current(self) -> str:
        return self.row_key(self.cursor)

    @property
    def visible_pages(self) -> range:
        first = self.scroll_offset.y // self.row_height
        return range(first // PAGE_ROWS, (first + self.size.height // self.row_height) // PAGE_ROWS + 1)

    def toggle_mark(self) -> None:
        if self.current:
            self.marked ^= {self.current}
            self.refresh()

    # drawing

    def render_line(self, y: int) -> Strip:
        width = self.row_width
        base = self.rich_style
        if y == 0:
            return self._strip(
                self.columns,
                [column.title for column in self.columns],
                base + self.get_component_rich_style("table--heading"),
            )
        row, line = divmod(self.scroll_offset.y + y - 1, self.row_height)
        if not self.total and self.empty:
            lines = _fit_text(self.empty, width - 2, self.size.height - 1)
            text = f" {lines[y - 1]}" if y <= len(lines) else ""
            return Strip(
                [Segment(set_cell_size(text, width), base + self.get_component_rich_style("table--empty"))], width
            )
        if row >= self.total:
            return Strip.blank(width, base)
        rows = self._pages.get(row // PAGE_ROWS)
        if rows is None:
            self._request_page(row // PAGE_ROWS)
            return Strip(
                [Segment(set_cell_size(" …", width), base + self.get_component_rich_style("table--waiting"))], width
            )
        if row % PAGE_ROWS >= len(rows):
            return Strip.blank(width, base)
        key, cells, details, is_dim = rows[row % PAGE_ROWS]
        style = base
        if key in self.marked:
            style += self.get_component_rich_style("table--mark", partial=True)
        if row == self.cursor:
            style += self.get_component_rich_style("table--cursor")
        if line:
            if row != self.cursor:
                style += self.get_component_rich_style("table--detail")
            return self._strip(self.details[line - 1], details[line - 1], style, "  ")
        if is_dim and row != self.cursor:
            style += self.get_component_rich_style("table--detail")
        has_tones = row != self.cursor and key not in self.marked
        mark = CHOSEN_MARK if key in self.marked else SHOWN_MARK if key == self._shown else " "
        return self._strip(self.columns, cells, style, mark, has_tones)

    def _request_page(self, page: int) -> None:
        if page not in self._requested:
            self._requested.add(page)
            self.post_message(self.PageRequested(self, page))

    def _strip(
        self, columns: Sequence[Column], cells: Sequence[str], style: Style, mark: str = " ", has_tones: bool = False
    ) -> Strip:
        """Return a line with the cells of the columns for which there is room."""
        visible = [
            (column, cell) for column, cell in zip(columns, cells, strict=True) if self.row_width >= column.from_width
        ]
        fixed = sum(column.width for column, _ in visible) + len(visible)
        rest = max(0, self.row_width - cell_len(mark) - fixed)
        segments, text = [], mark
        for column, cell in visible:
            width = column.width or min(rest, column.max_width or rest)
            fitted = fit_cell(sanitize(cell), width, column.right, column.cut_middle)
            tone = column.tone(cell) if has_tones and column.tone else ""
            if tone:
                segments += [
                    Segment(text, style),
                    Segment(fitted, style + self.get_component_rich_style(f"table--{tone}", partial=True)),
                ]
                text = " "
            else:
                text += fitted + " "
        return Strip([*segments, Segment(text, style)]).adjust_cell_length(self.row_width, style)

    # moving

    def validate_cursor(self, cursor: int) -> int:
        return max(0, min(cursor, self.total - 1))

    def watch_cursor(self, before: int, now: int) -> None:
        for row in (before, now):
            self._refresh_row(row)
        if not self._is_resetting:
            self._show_cursor()
            self.post_message(self.Moved(self, now))

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self.vertical_scrollbar.position = new_value  # the base class skips a scrollbar that is not visible yet
        self.refresh()

    def action_move(self, rows: int) -> None:
        self.cursor += rows

    def action_page(self, pages: int) -> None:
        self.cursor += pages * max(1, (self.size.height - 2) // self.row_height)

    def action_end(self, where: int) -> None:
        before, self.cursor = self.cursor, 0 if where < 0 else self.total - 1
        if self.cursor == before:  # the panes may show something else
            self.post_message(self.Moved(self, before))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable enter with the name of what it does."""
        return action != "choose" or (bool(self.total) and parameters == (self.verb(),))

    def action_choose(self, verb: str) -> None:  # noqa: ARG002
        self.choose()

    def choose(self) -> None:
        if self.total:
            self.post_message(self.Chosen(self, self.cursor))

    def on_click(self, event: events.Click) -> None:
        row = (self.scroll_offset.y + event.y - 1) // self.row_height
        if event.y > 0 and 0 <= row < self.total:
            self.cursor = row
            if event.chain > 1:
                self.choose()

    def on_resize(self) -> None:
        self._fit_virtual_size()
        self.call_after_refresh(self._show_cursor)
        self.refresh()


def _fit_text(text: str, width: int, height: int) -> list[str]:
    """Wrap paragraphs below an empty line. Where that is too high, leave out empty lines, then the paragraphs."""
    lines = ["", *_wrap(text, width)]
    if len(lines) > height:
        lines = list(filter(None, lines))
    return lines if len(lines) <= height else _wrap(" ".join(text.split()), width)


def _wrap(text: str, width: int) -> list[str]:
    import textwrap

    return [line for paragraph in text.split("\n") for line in textwrap.wrap(paragraph, max(10, width)) or [""]]
