"""A list of a folder's contents, for changing folders and choosing files. Typing filters it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from textual import events, on, work
from textual.binding import Binding, BindingType
from textual.message import Message

from softprompt_tui.rendering.numbers import format_bytes, format_duration
from softprompt_tui.widgets.lazy_table import PAGE_ROWS, Column, Row, Table

MAX_ITEMS = 20_000  # per folder
UP = ".."
# what other programs call their files; the importer reads the bytes and ignores the name
IMPORTABLE = re.compile(r"\.(safetensors|pt|pth|bin|ckpt|png|npy|npz|zip|tar|pth\.tar-[0-9]+)$", re.IGNORECASE)
_SEPARATORS = re.compile(r"[ _.-]")
COLUMNS = (
    Column("name", 0, tone=lambda name: "going" if name.endswith("/") else ""),
    Column("size", 9, right=True),
    Column("age", 6, right=True, from_width=40),
)


@dataclass(frozen=True)
class Item:
    """A file or folder. A folder's name ends with a slash."""

    name: str
    size: int
    changed: float

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


class DirectoryList(Table):
    """The contents of a folder. Enter and backspace change folders; choosing a file posts FileChosen.

    Letters filter the names instead of moving the cursor.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "mark", "Mark"),
        Binding("backspace", "erase", "Delete letter", show=False),
        Binding("backspace,left", "up", "Up", key_display="←"),
        Binding("right", "choose", "Into", show=False),
        Binding("escape", "end_filter", "Show all names", key_display="esc"),
    ]

    class FileChosen(Message):
        """The user chose a file with enter or a double click."""

    class Listed(Message):
        """The list shows `folder`. `error` tells the user about a problem, or is empty."""

        def __init__(self, folder: Path, error: str = "") -> None:
            super().__init__()
            self.folder, self.error = folder, error

    class Filtered(Message):
        """Other names are shown."""

    def __init__(self, folder: Path, only_folders: bool = False, id: str | None = None) -> None:
        super().__init__(COLUMNS, "Nothing to show here.", id=id)
        self.folder, self.only_folders = folder, only_folders
        self.filter_text, self.shows_all_files = "", False
        self._all_items: list[Item] = []
        self._items: list[Item] = []  # those that pass the filters

    def on_mount(self) -> None:
        for letter in "jkgG":
            self._bindings.key_to_bindings.pop(letter, None)
        self.go(self.folder)

    @work(exclusive=True, group="folder")
    async def go(self, folder: Path, to: str = "") -> None:
        """Show another folder with the cursor on the item `to`. Clears all marks."""
        try:
            items = await asyncio.to_thread(list_directory, folder, self.only_folders)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL
            self.post_message(
                self.Listed(self.folder, f"cannot list {folder}: {getattr(error, 'strerror', None) or error}")
            )
            return
        self.folder, self._all_items, self.filter_text = folder, items, ""
        self.marked.clear()
        self._list(to)
        self.post_message(self.Listed(folder, f"showing only {MAX_ITEMS:,} names" if len(items) > MAX_ITEMS else ""))

    def _list(self, to: str) -> None:
        """List what passes the filters, with the cursor on the item `to` or at the top."""
        self._items = [item for item in self._all_items if self._is_shown(item)]
        cursor = next((i for i, item in enumerate(self._items) if item.name == to), 0)
        self.reset(len(self._items), cursor)
        self._fill_page(cursor // PAGE_ROWS)
        self.refresh_bindings()
        self.post_message(self.Filtered())

    def _is_shown(self, item: Item) -> bool:
        """Return whether an item passes the filters. Marked files always do."""
        if item.name in self.marked:
            return True
        text, name = self.filter_text.casefold(), item.name.casefold()
        if text and (item.name == f"{UP}/" or (text not in name and text not in _SEPARATORS.sub("", name))):
            return False
        return item.is_folder or self.shows_all_files or IMPORTABLE.search(name) is not None

    def describe_filter(self) -> str:
        """Say which names are shown."""
        files = sum(not item.is_folder for item in self._all_items)
        kinds = "all files" if self.shows_all_files else "files to import"
        if self.only_folders:
            kinds = "folders"
        if self.filter_text:
            return f"{kinds} with {self.filter_text!r}: {len(self._items)}"
        hidden = len(self._all_items) - len(self._items)
        if hidden:
            return f"{kinds}: {files - hidden} of {files}"
        return f"{kinds}; type a part of a name to filter"

    @on(Table.PageRequested)
    def _page_requested(self, event: Table.PageRequested) -> None:
        event.stop()
        self._fill_page(event.page)

    def _fill_page(self, page: int) -> None:
        now = datetime.now(UTC)
        self.fill(
            page, [Row(item.name, _row(item, now)) for item in self._items[page * PAGE_ROWS : (page + 1) * PAGE_ROWS]]
        )

    @property
    def chosen_files(self) -> list[Path]:
        """The marked files, or the file under the cursor."""
        names = sorted(self.marked) or [self.current]
        return [self.folder / name for name in names if name and not name.endswith("/")]

    @property
    def highlighted_folder(self) -> Path | None:
        name = self.current
        return self.folder / name[:-1] if name.endswith("/") and name != f"{UP}/" else None

    def mark_again(self, names: Collection[str]) -> None:
        """Put the cursor on a single name, or mark several."""
        if not {item.name.rstrip("/") for item in self._items} >= set(names):
            self.shows_all_files = True
            self._list("")
        found = [i for i, item in enumerate(self._items) if item.name.rstrip("/") in names]
        if len(found) > 1:
            self.marked |= {self._items[i].name for i in found}
        if found:
            self.cursor = found[0]
            self.refresh()

    def action_up(self) -> None:
        self.go(self.folder.parent, f"{self.folder.name}/")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:  # noqa: ARG002
        if action in ("erase", "end_filter"):
            return bool(self.filter_text)
        return action != "mark" or not self.only_folders

    def on_key(self, event: events.Key) -> None:
        """Add a typed letter to the filter. A slash or a tilde begins a path, which the dialog takes."""
        character = event.character
        if event.is_printable and character is not None and not character.isspace() and character not in "/~":
            event.stop()
            self._filter(self.filter_text + character)

    def action_erase(self) -> None:
        self._filter(self.filter_text[:-1])

    def action_end_filter(self) -> None:
        self._filter("")

    def _filter(self, text: str) -> None:
        self.filter_text = text
        self._list(self.current)

    def show_all_files(self, shows_all: bool) -> None:
        """List all files, or only those that can be imported."""
        self.shows_all_files = shows_all
        self._list(self.current)

    def action_mark(self) -> None:
        if not self.current.endswith("/"):
            self.toggle_mark()
        self.cursor += 1

    @on(Table.Chosen)
    def _chosen(self, event: Table.Chosen) -> None:
        event.stop()
        if self.current == f"{UP}/":
            self.action_up()
        elif self.current.endswith("/"):
            self.go(self.folder / self.current[:-1])
        elif self.current:
            self.post_message(self.FileChosen())


def list_directory(folder: Path, only_folders: bool = False) -> list[Item]:
    """List up to MAX_ITEMS files and folders that are not hidden. Folders come first; both are sorted by name.

    Raises:
        OSError: the folder cannot be read.
        ValueError: the path contains a NUL.
    """
    items: list[Item] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or len(items) >= MAX_ITEMS:
                continue
            try:
                info = entry.stat()
                name = f"{entry.name}/" if entry.is_dir() else entry.name
            except OSError:  # a broken link
                continue
            if name.endswith("/") or not only_folders:
                items.append(Item(name, info.st_size, info.st_mtime))
    items.sort(key=lambda item: (not item.is_folder, item.name.casefold()))
    return [Item(f"{UP}/", 0, 0.0)] * (folder != folder.parent) + items


def _row(item: Item, now: datetime) -> tuple[str, ...]:
    size = "" if item.is_folder else format_bytes(item.size)
    return (item.name, size, format_duration(now.timestamp() - item.changed) if item.changed else "")
