"""The library pane: saved soft prompts with search, sort order, marks and actions."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input

from softprompt.errors import SoftPromptError
from softprompt.library import EntryPage, EntrySummary, Library
from softprompt_tui.messages import EntryAction, EntryHighlighted, OnEntry
from softprompt_tui.rendering.numbers import format_age, format_number
from softprompt_tui.rendering.provenance import UNKNOWN
from softprompt_tui.widgets.lazy_table import PAGE_ROWS, Column, Table
from softprompt_tui.widgets.line_input import LineInput

GOOD_SIMILARITY = 0.99  # higher similarities are highlighted
EMPTY = "The library is empty.\n\nctrl+t trains the prompt above and saves the result here."
NO_MATCHES = "Nothing matches.\n\nescape ends the search."
ORDERS = {
    "created": "newest first",
    "similarity": "most similar first",
    "name": "by name",
    "changed": "last changed first",
    "composed": "best composed first",
    "model": "by model",
}


def _similarity_tone(cell: str) -> str:
    return "good" if cell[:1].isdigit() and float(cell) >= GOOD_SIMILARITY else ""


COLUMNS = (
    Column("name", 0),
    Column("k", 3, right=True, from_width=34),
    Column("similar", 7, right=True, tone=_similarity_tone),
    Column("composed", 8, right=True, from_width=52, tone=_similarity_tone),
    Column("model", 12, from_width=80),
    Column("tags", 14, from_width=96),
    Column("age", 6, right=True),
)
ACTIONS = {
    "r": (OnEntry.RENAME, "Rename"),
    "t": (OnEntry.TAG, "Tag"),
    "N": (OnEntry.NOTE, "Note"),
    "d": (OnEntry.DELETE, "Delete"),
    "u": (OnEntry.UNDO, "Undo"),
    "n": (OnEntry.VARY, "Vary"),
    "y": (OnEntry.COPY, "Copy"),
    "c": (OnEntry.COMPARE, "Compare"),
    "i": (OnEntry.DETAIL, "Details"),
    "e": (OnEntry.EXPORT, "Export"),
    "f": (OnEntry.IMPORT, "Import files"),
    "H": (OnEntry.HARD_PROMPT, "Hard prompt"),
    "x": (OnEntry.HARDEN, "Hard readout"),
    "Y": (OnEntry.COPY_HARD, "Copy hard readout"),
}


FOOTER_ACTIONS = (OnEntry.RENAME, OnEntry.DELETE)
BULK_ACTIONS = (OnEntry.DELETE, OnEntry.TAG, OnEntry.COMPARE)
ENTRYLESS_ACTIONS = (OnEntry.UNDO, OnEntry.IMPORT)


class LibraryPane(Vertical):
    """The saved soft prompts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", key_display="/"),
        Binding("o", "order", "Order", show=False),
        Binding("space", "mark", "Mark", show=False),
        *(
            Binding(key, f"act('{action}')", label, show=action in FOOTER_ACTIONS)
            for key, (action, label) in ACTIONS.items()
        ),
    ]

    def __init__(self, library: Library, order: str) -> None:
        super().__init__(id="library", classes="pane below")
        self.library = library
        self.order = order if order in ORDERS else "created"
        self.search_text = ""
        self._entries: dict[str, EntrySummary] = {}
        self._destination = ""  # entry to move the cursor to after the next load
        self._is_new_list = False  # whether the load in progress has a new search text or order
        self._before_search = ""  # entry under the cursor when the search began

    def compose(self) -> ComposeResult:
        search = LineInput(placeholder="words in name, prompt, readout, tags, note", id="search", compact=True)
        search.display = False
        yield search
        yield Table(COLUMNS, EMPTY, id="entries")

    def on_mount(self) -> None:
        self.reload()

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    def current(self) -> EntrySummary | None:
        return self._entries.get(self.table.current)

    def revision_of(self, entry: str) -> int:
        """Return the revision of an entry in the list, or 0 if the entry has not been listed."""
        return self._entries[entry].revision if entry in self._entries else 0

    def reload(self, to: str = "") -> None:
        """Load the list again. The cursor moves to the entry `to`, or stays on the current entry."""
        self._destination = to or self._destination  # a cancelled load passes its destination on
        self._reload()

    @work(exclusive=True, group="library")
    async def _reload(self) -> None:
        search_text, order, table = self.search_text, self.order, self.table
        while True:
            destination = self._destination or table.current
            page = await self._fetch(search_text, order, 0, destination)
            if page is None:
                return
            if destination == (self._destination or table.current):  # otherwise the cursor has moved: load again
                break
        self._destination = ""
        table.empty = NO_MATCHES if search_text else EMPTY
        table.reset(page.total, 0 if page.position is None and self._is_new_list else page.position, self._is_new_list)
        self._is_new_list = False
        table.fill(0, self._rows(page.entries))
        summary = (
            f"{page.total:,}{' with ' + repr(search_text) if search_text else ''}, {ORDERS[order]}"
            if page.total > 1 or search_text
            else ""
        )
        self.border_subtitle = summary.replace("[", r"\[")
        self.post_message(EntryHighlighted(table.current, by_user=False))

    @on(Table.PageRequested)
    def _page_requested(self, event: Table.PageRequested) -> None:
        event.stop()
        self._load_page(event.page)

    @work(group="pages")
    async def _load_page(self, number: int) -> None:
        search_text, order = self.search_text, self.order
        page = await self._fetch(search_text, order, number)
        if page is not None and (search_text, order) == (self.search_text, self.order):
            self.table.fill(number, self._rows(page.entries))
            if self.table.cursor // PAGE_ROWS == number:
                self.post_message(EntryHighlighted(self.table.current))

    async def _fetch(self, search_text: str, order: str, number: int, locate: str = "") -> EntryPage | None:
        try:
            page = await asyncio.to_thread(
                self.library.list, search_text, sort=order, limit=PAGE_ROWS, offset=number * PAGE_ROWS, locate=locate
            )
        except SoftPromptError as error:
            self.app.notify(str(error), severity="error", markup=False)
            return None
        self._entries |= {entry.id: entry for entry in page.entries}
        return page

    def _rows(self, entries: list[EntrySummary]) -> list[tuple[str, tuple[str, ...]]]:
        now = datetime.now(UTC)
        return [
            (
                entry.id,
                (
                    entry.name,
                    str(entry.tokens or "-"),
                    format_number(entry.similarity),
                    format_number(entry.composed),
                    entry.model or UNKNOWN,
                    " ".join(entry.tags),
                    format_age(entry.created, now),
                ),
            )
            for entry in entries
        ]

    # keys

    def action_search(self) -> None:
        search = self.query_one("#search", Input)
        self._before_search = self.table.current
        search.display = True
        search.focus()

    @on(Input.Changed, "#search")
    def _searched(self, event: Input.Changed) -> None:
        """Load the matching entries. The result must not depend on which earlier searches finished in time."""
        event.stop()
        if event.value != self.search_text:
            self.search_text, self._is_new_list = event.value, True
            # not `has_focus`: it changes only after the field has handled its message
            is_typed = self.app.focused is event.input
            self.reload(self._before_search if is_typed else self.table.current)

    @on(Input.Submitted, "#search")
    def _found(self, event: Input.Submitted) -> None:
        event.stop()
        self.table.focus()

    def on_key(self, event: events.Key) -> None:
        key = event.key
        search = self.query_one("#search", Input)
        if key == "escape" and search.display:
            search.value = ""
            search.display = False
            self.table.focus()
            event.stop()
        elif key == "down" and search.has_focus:
            self.table.focus()
        elif key == "escape" and self.table.marked:
            self.table.marked.clear()
            self.table.refresh()
            event.stop()

    def action_order(self) -> None:
        orders = list(ORDERS)
        self.order, self._is_new_list = orders[(orders.index(self.order) + 1) % len(orders)], True
        self.reload()

    def action_mark(self) -> None:
        self.table.toggle_mark()
        self.table.cursor += 1

    def action_act(self, action: str) -> None:
        marked = tuple(sorted(self.table.marked))
        kind = OnEntry(action)
        entries = marked if marked and kind in BULK_ACTIONS else tuple(filter(None, [self.table.current]))
        if entries or kind in ENTRYLESS_ACTIONS:
            self.post_message(EntryAction(kind, entries))

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if isinstance(event, Table.Chosen):
            self.post_message(EntryAction(OnEntry.OPEN, (self.table.current,)))
        else:
            self.post_message(EntryHighlighted(self.table.current))
