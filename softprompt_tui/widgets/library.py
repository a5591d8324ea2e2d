"""The library pane: saved soft prompts with search, sort order, marks and actions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Label

from softprompt.errors import SoftPromptError
from softprompt.library import EntryPage, EntrySummary, Library
from softprompt_tui.messages import EntryAction, EntryHighlighted, OnEntry, TrashToggled
from softprompt_tui.rendering.numbers import format_age, format_number
from softprompt_tui.rendering.provenance import UNKNOWN
from softprompt_tui.widgets.lazy_table import AGE_SECONDS, OPEN, PAGE_ROWS, RESTORE, Column, Row, Table
from softprompt_tui.widgets.line_input import LineInput
from softprompt_tui.widgets.pane import title_with_keys

GOOD_SIMILARITY = 0.99  # higher similarities are highlighted
EMPTY = "The library is empty.\n\nctrl+t trains the prompt above and saves the result here."
NO_MATCHES = "Nothing matches.\n\nescape ends the search."
EMPTY_TRASH = "The trash is empty.\n\nT shows the library again."
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
    Column("name", 0, cut_middle=True),
    Column("k", 3, right=True, from_width=34),
    Column("similar", 7, right=True, tone=_similarity_tone),
    Column("composed", 8, right=True, from_width=46, tone=_similarity_tone),
    Column("as text", 7, right=True, from_width=72),
    Column("age", 6, right=True),
)
TRASH_COLUMNS = (*COLUMNS[:-1], Column("deleted", 7, right=True))
DETAILS = (
    (
        Column("prompt", 0),
        Column("tags", 14, right=True, from_width=50),
        Column("model", 20, right=True, from_width=72, cut_middle=True),
    ),
    (Column("readout", 0),),
)
NEVER_SHOWN = 1_000_000  # a width that no terminal has
# for entries without tags: the prompt gets the cells
UNTAGGED_DETAILS = (
    tuple(replace(column, from_width=NEVER_SHOWN) if column.title == "tags" else column for column in DETAILS[0]),
    DETAILS[1],
)
ACTIONS = {
    "r": (OnEntry.RENAME, "Rename"),
    "t": (OnEntry.TAG, "Tag"),
    "N": (OnEntry.NOTE, "Note"),
    "d": (OnEntry.DELETE, "Delete"),
    "u": (OnEntry.UNDO, "Undo"),
    "#": (OnEntry.FILTER, "Tags"),
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


# what escape ends, the first that there is, and how the key bar calls it; beside marks, it needs its room for Delete
BACK = {"search": "End search", "marks": "", "tag": "All entries", "trash": "Library"}
FOOTER_ACTIONS = (OnEntry.RENAME, OnEntry.DELETE)
BULK_ACTIONS = (OnEntry.DELETE, OnEntry.TAG, OnEntry.COMPARE, OnEntry.RESTORE)
ENTRYLESS_ACTIONS = (OnEntry.UNDO, OnEntry.IMPORT, OnEntry.FILTER)
TRASH_ACTIONS = (OnEntry.RESTORE, OnEntry.UNDO)


class SearchLine(LineInput):
    """The words to search for."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "submit", "To the list", key_display="⏎ ↓")]


class LibraryPane(Vertical):
    """The saved soft prompts."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "Search", key_display="/"),
        Binding("o", "order", "Order", show=False),
        Binding("space", "mark", "Mark", show=False),
        Binding("T", "trash", "Trash", show=False),
        Binding("down", "leave_search", show=False),
        *(
            Binding("escape", f"back('{step}')", label, show=bool(label), key_display="esc")
            for step, label in BACK.items()
        ),
        Binding("R", f"act('{OnEntry.RESTORE}')", "Restore", show=False),  # as enter does, which is shown
        *(
            Binding(key, f"act('{action}')", label, show=action in FOOTER_ACTIONS)
            for key, (action, label) in ACTIONS.items()
        ),
    ]

    def __init__(self, library: Library, order: str) -> None:
        super().__init__(id="library", classes="pane below")
        self.library = library
        self.order = order if order in ORDERS else "created"
        self.search_text = self.tag = ""
        self.shows_trash = False
        self._pages: dict[int, list[EntrySummary]] = {}  # the pages in the table, to update their ages
        self._entries: dict[str, EntrySummary] = {}
        self._destination = ""  # entry to move the cursor to after the next load
        self._is_new_list = False  # whether the load in progress has a new search text or order
        self._before_search = ""  # entry under the cursor when the search began

    def compose(self) -> ComposeResult:
        line = Horizontal(id="search-line")
        line.display = False
        with line:
            yield Label("/")
            yield SearchLine(placeholder="words in name, prompt, readout, tags, note", id="search")
        yield Table(COLUMNS, EMPTY, "entries", DETAILS, lines=2, verb=lambda: RESTORE if self.shows_trash else OPEN)

    def on_mount(self) -> None:
        self.reload()
        self.set_interval(AGE_SECONDS, self._update_ages)

    def _update_ages(self) -> None:
        if self.display:
            for number in self.table.visible_pages:
                self.table.update_rows(number, self._rows(self._pages.get(number, [])))

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
        table = self.table
        while True:
            destination = self._destination or table.current
            page = await self._fetch(0, destination)
            if page is None:
                return
            if destination == (self._destination or table.current):  # otherwise the cursor has moved: load again
                break
        self._destination = ""
        has_filter = bool(self.search_text or self.tag)
        table.columns = TRASH_COLUMNS if self.shows_trash else COLUMNS
        table.empty = NO_MATCHES if has_filter else EMPTY_TRASH if self.shows_trash else EMPTY
        self._pages.clear()
        table.reset(page.total, 0 if page.position is None and self._is_new_list else page.position, self._is_new_list)
        is_new_list, self._is_new_list = self._is_new_list, False
        self._fill(0, page.entries)
        self._show_summary()
        self._post_highlighted(by_user=False, is_new_list=is_new_list)

    def _fill(self, number: int, entries: list[EntrySummary]) -> None:
        self._pages[number] = entries
        has_tags = any(entry.tags for page in self._pages.values() for entry in page)
        self.table.details = DETAILS if has_tags else UNTAGGED_DETAILS
        self.table.fill(number, self._rows(entries))

    def on_resize(self) -> None:
        self._show_summary()

    def _show_summary(self) -> None:
        self.border_subtitle = self._summary() if self._pages else ""

    def _summary(self) -> str:
        """Return markup that says what the list shows, and which keys lead on from there."""
        total = self.table.total
        filters = f"{f' #{self.tag}' if self.tag else ''}{f' with {self.search_text!r}' if self.search_text else ''}"
        if self.shows_trash:
            words, hints = f"trash: {total:,}{filters}", (("R restore",) if total else ()) + ("T back",)
        elif filters:
            words, hints = f"{total:,}{filters}", ("esc all",)
        else:
            words = f"{total:,} {ORDERS[self.order]}" if total > 1 else ""
            hints = ("/ search", "# tag", "T trash") if total > 1 else ("T trash",)
        return title_with_keys(words, hints, self.size.width - 4)

    def _post_highlighted(self, by_user: bool = True, is_new_list: bool = False) -> None:
        current, entry = self.table.current, self.current()
        is_new_list = is_new_list and bool(current or self.shows_trash)  # an empty search keeps what is shown
        if current or not by_user:
            is_trashed = entry is not None and bool(entry.trashed)
            self.post_message(EntryHighlighted(current, by_user, is_new_list, is_trashed))

    @on(Table.PageRequested)
    def _page_requested(self, event: Table.PageRequested) -> None:
        event.stop()
        self._load_page(event.page)

    @work(group="pages")
    async def _load_page(self, number: int) -> None:
        query = self._query
        page = await self._fetch(number)
        if page is not None and query == self._query:
            self._fill(number, page.entries)
            if self.table.cursor // PAGE_ROWS == number:
                self._post_highlighted()

    @property
    def _query(self) -> tuple[str, str, str, bool]:
        """What the list shows, and in which order."""
        return self.search_text, self.tag, self.order, self.shows_trash

    async def _fetch(self, number: int, locate: str = "") -> EntryPage | None:
        search_text, tag, order, trashed = self._query
        try:
            page = await asyncio.to_thread(
                self.library.list, search_text, tags=(tag,) if tag else (), sort=order, trashed=trashed,
                limit=PAGE_ROWS, offset=number * PAGE_ROWS, locate=locate,
            )  # fmt: skip
        except SoftPromptError as error:
            self.app.notify(str(error), severity="error", markup=False)
            return None
        self._entries |= {entry.id: entry for entry in page.entries}
        return page

    def _rows(self, entries: list[EntrySummary]) -> list[Row]:
        now = datetime.now(UTC)
        return [
            Row(
                entry.id,
                (
                    entry.name,
                    str(entry.tokens or "-"),
                    format_number(entry.similarity),
                    format_number(entry.composed),
                    format_number(entry.readout_similarity),
                    format_age(entry.trashed or entry.created, now),
                ),
                (
                    (
                        entry.hard_prompt or entry.readout_text,
                        " ".join(f"#{tag}" for tag in entry.tags),
                        entry.model or UNKNOWN,
                    ),
                    (f"words: {entry.readout_text}" if entry.readout_text else "",),
                ),
            )
            for entry in entries
        ]

    def filter_by(self, tag: str) -> None:
        """Show only entries with this tag, or all of them if it is ""."""
        if tag != self.tag:
            self.tag, self._is_new_list = tag, True
            self.refresh_bindings()
            self.reload(self.table.current)

    # keys

    def action_search(self) -> None:
        self._before_search = self.table.current
        self._search_line.display = True
        self.query_one(SearchLine).focus()

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

    def action_leave_search(self) -> None:
        self.table.focus()

    @property
    def _search_line(self) -> Horizontal:
        return self.query_one("#search-line", Horizontal)

    @property
    def _back_step(self) -> str:
        """What escape ends: one of BACK, or "" for nothing."""
        if self._search_line.display:
            return "search"
        return "marks" if self.table.marked else "tag" if self.tag else "trash" if self.shows_trash else ""

    def action_back(self, step: str) -> None:
        """End the search, the marks or the tag's list, or leave the trash."""
        match step:
            case "search":
                self.query_one(SearchLine).value = ""
                self._search_line.display = False
                self.table.focus()
                self.refresh_bindings()
            case "marks":
                self.clear_marks()
            case "tag":
                self.filter_by("")
            case "trash":
                self.action_trash()

    def clear_marks(self) -> None:
        self.table.marked.clear()
        self.table.refresh()
        self.refresh_bindings()

    def action_trash(self) -> None:
        """Show the trash, or the library again."""
        self.shows_trash, self._is_new_list = not self.shows_trash, True
        self.table.marked.clear()
        self.refresh_bindings()
        self.post_message(TrashToggled())
        self.reload()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Enable only what can be done here: in the trash, in the library, or in an empty list."""
        if action != "act":
            is_typing = self.app.focused is self.query_one(SearchLine)
            match action:
                case "search":  # while typing, the key types itself
                    return bool(self.table.total or self.search_text or self.tag) and not is_typing
                case "leave_search":
                    return is_typing
                case "back":
                    return parameters == (self._back_step,)
            return True
        kind = OnEntry(str(parameters[0]))
        is_here = kind in TRASH_ACTIONS if self.shows_trash else kind != OnEntry.RESTORE
        return is_here and (kind in ENTRYLESS_ACTIONS or bool(self.table.total))

    def action_order(self) -> None:
        orders = list(ORDERS)
        self.order, self._is_new_list = orders[(orders.index(self.order) + 1) % len(orders)], True
        self.reload()

    def action_mark(self) -> None:
        self.table.toggle_mark()
        self.table.cursor += 1
        self.refresh_bindings()  # escape removes the marks

    def action_act(self, action: str) -> None:
        marked = tuple(sorted(self.table.marked))
        kind = OnEntry(action)
        entries = marked if marked and kind in BULK_ACTIONS else tuple(filter(None, [self.table.current]))
        if entries or kind in ENTRYLESS_ACTIONS:
            self.post_message(EntryAction(kind, entries))

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if not isinstance(event, Table.Chosen):
            self._post_highlighted()
        elif self.shows_trash:
            self.action_act(OnEntry.RESTORE)
        else:
            self.post_message(EntryAction(OnEntry.OPEN, (self.table.current,)))
