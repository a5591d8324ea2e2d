"""The library: a list of any length with search, order, marks, and keys for all that can be done with an entry."""

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
from softprompt_tui.rendering.numbers import age, figure
from softprompt_tui.rendering.provenance import UNKNOWN
from softprompt_tui.widgets.lazy_table import PAGE, Column, Table

GOOD = 0.99  # the similarity from which it stands out
EMPTY = "The library is empty.\n\nctrl+t trains the prompt above, and what comes of it is kept here."
NOT_FOUND = "Nothing is like that.\n\nescape ends the search."
ORDERS = {
    "created": "newest first",
    "similarity": "most similar first",
    "name": "by name",
    "changed": "last changed first",
    "composed": "best composed first",
    "model": "by model",
}


def _quality(cell: str) -> str:
    return "good" if cell[:1].isdigit() and float(cell) >= GOOD else ""


COLUMNS = (
    Column("name", 0),
    Column("k", 3, right=True, from_width=34),
    Column("similar", 7, right=True, tone=_quality),
    Column("composed", 8, right=True, from_width=52, tone=_quality),
    Column("model", 12, from_width=80),
    Column("tags", 14, from_width=96),
    Column("age", 6, right=True),
)
ACTIONS = {"r": (OnEntry.RENAME, "Rename"), "t": (OnEntry.TAG, "Tag"), "N": (OnEntry.NOTE, "Note"), "d": (OnEntry.DELETE, "Delete"), "u": (OnEntry.UNDO, "Undo"), "n": (OnEntry.VARY, "Vary"),
           "y": (OnEntry.COPY, "Copy"), "c": (OnEntry.COMPARE, "Compare"), "i": (OnEntry.DETAIL, "Detail"), "e": (OnEntry.EXPORT, "Export"), "f": (OnEntry.IMPORT, "From files"), "H": (OnEntry.HARD_PROMPT, "Hard prompt"), "x": (OnEntry.HARDEN, "Hard readout"), "Y": (OnEntry.COPY_HARD, "Copy hard readout")}  # fmt: skip


SHOWN = (OnEntry.RENAME, OnEntry.DELETE)
OF_ALL_MARKED = (OnEntry.DELETE, OnEntry.TAG, OnEntry.COMPARE)
OF_NONE = (OnEntry.UNDO, OnEntry.IMPORT)


class LibraryPane(Vertical):
    """The saved soft prompts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", key_display="/"),
        Binding("o", "order", "Order", show=False),
        Binding("space", "mark", "Mark", show=False),
        *(Binding(key, f"act('{action}')", words, show=action in SHOWN) for key, (action, words) in ACTIONS.items()),
    ]

    def __init__(self, library: Library, order: str) -> None:
        super().__init__(id="library", classes="pane below")
        self.library = library
        self.order = order if order in ORDERS else "created"
        self.words = ""
        self._entries: dict[str, EntrySummary] = {}
        self._to = ""  # the entry that the cursor goes to when the list has been read
        self._is_another = False  # list that is being read: other words, or another order
        self._before = ""  # the entry that the cursor was on before the search

    def compose(self) -> ComposeResult:
        search = Input(placeholder="words in name, prompt, readout, tags, note", id="search", compact=True)
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
        """The revision of an entry that the list shows; 0 where it has not been shown."""
        return self._entries[entry].revision if entry in self._entries else 0

    def reload(self, to: str = "") -> None:
        """Reads the list anew; the cursor goes to the entry `to`, or stays on its own."""
        self._to = to or self._to  # a reading that is superseded leaves its destination to the next
        self._reload()

    @work(exclusive=True, group="library")
    async def _reload(self) -> None:
        words, order, table = self.words, self.order, self.table
        while True:
            destination = self._to or table.current
            found = await self._fetched(words, order, 0, destination)
            if found is None:
                return
            if destination == (self._to or table.current):  # else the cursor has moved while the list was read
                break
        self._to = ""
        table.empty = NOT_FOUND if words else EMPTY
        table.reset(found.total, 0 if found.at is None and self._is_another else found.at, self._is_another)
        self._is_another = False
        table.fill(0, self._rows(found.entries))
        what = (
            f"{found.total:,}{' with ' + repr(words) if words else ''}, {ORDERS[order]}"
            if found.total > 1 or words
            else ""
        )
        self.border_subtitle = what.replace("[", r"\[")
        self.post_message(EntryHighlighted(table.current, by_hand=False))

    @on(Table.PageRequested)
    def _wanted(self, event: Table.PageRequested) -> None:
        event.stop()
        self._page(event.page)

    @work(group="pages")
    async def _page(self, page: int) -> None:
        words, order = self.words, self.order
        found = await self._fetched(words, order, page)
        if found is not None and (words, order) == (self.words, self.order):
            self.table.fill(page, self._rows(found.entries))
            if self.table.cursor // PAGE == page:
                self.post_message(EntryHighlighted(self.table.current))

    async def _fetched(self, words: str, order: str, page: int, locate: str = "") -> EntryPage | None:
        try:
            found = await asyncio.to_thread(
                self.library.list, words, sort=order, limit=PAGE, offset=page * PAGE, locate=locate
            )
        except SoftPromptError as error:
            self.app.notify(str(error), severity="error", markup=False)
            return None
        self._entries |= {one.id: one for one in found.entries}
        return found

    def _rows(self, listed: list[EntrySummary]) -> list[tuple[str, tuple[str, ...]]]:
        now = datetime.now(UTC)
        return [
            (
                one.id,
                (
                    one.name,
                    str(one.tokens or "-"),
                    figure(one.similarity),
                    figure(one.composed),
                    one.model or UNKNOWN,
                    " ".join(one.tags),
                    age(one.created, now),
                ),
            )
            for one in listed
        ]

    # keys

    def action_search(self) -> None:
        search = self.query_one("#search", Input)
        self._before = self.table.current
        search.display = True
        search.focus()

    @on(Input.Changed, "#search")
    def _searched(self, event: Input.Changed) -> None:
        """Read the list with these words. What stands in it must not depend on which words before these were read in time."""
        event.stop()
        if event.value != self.words:
            self.words, self._is_another = event.value, True
            is_typed = (
                self.app.focused is event.input
            )  # `has_focus` changes only when the field has handled its message
            self.reload(self._before if is_typed else self.table.current)

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
        self.order, self._is_another = orders[(orders.index(self.order) + 1) % len(orders)], True
        self.reload()

    def action_mark(self) -> None:
        self.table.toggle_mark()
        self.table.cursor += 1

    def action_act(self, action: str) -> None:
        marked = tuple(sorted(self.table.marked))
        wanted = OnEntry(action)
        entries = marked if marked and wanted in OF_ALL_MARKED else tuple(filter(None, [self.table.current]))
        if entries or wanted in OF_NONE:
            self.post_message(EntryAction(wanted, entries))

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if isinstance(event, Table.Chosen):
            self.post_message(EntryAction(OnEntry.OPEN, (self.table.current,)))
        else:
            self.post_message(EntryHighlighted(self.table.current))
