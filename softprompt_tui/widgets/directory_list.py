"""A folder's contents as a list: to walk through folders, and to choose files."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.message import Message

from softprompt_tui.rendering.numbers import duration
from softprompt_tui.widgets.lazy_table import PAGE, Column, Table

MAX_ITEMS = 20_000  # names of one folder that are listed
UP = ".."
COLUMNS = (
    Column("name", 0, tone=lambda name: "going" if name.endswith("/") else ""),
    Column("size", 9, right=True),
    Column("age", 6, right=True, from_width=40),
)


@dataclass(frozen=True)
class Item:
    """A file or folder; the name of a folder ends with a slash."""

    name: str
    size: int
    changed: float

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


class Folder(Table):
    """Enter goes into a folder, backspace out of it; a file that is chosen is told with Picked."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("backspace,left,h", "up", "Up", show=False),
        Binding("right,l", "choose", "Into", show=False),
        Binding("space", "mark", "Mark", show=False),
    ]

    class Picked(Message):
        """A file was chosen, by enter or a second click."""

    class Went(Message):
        """Another folder is listed, or why it cannot be."""

        def __init__(self, folder: Path, error: str = "") -> None:
            super().__init__()
            self.folder, self.error = folder, error

    def __init__(self, folder: Path, only_folders: bool = False, id: str | None = None) -> None:
        super().__init__(COLUMNS, "Nothing is here.", id=id)
        self.folder, self.only_folders = folder, only_folders
        self._items: list[Item] = []

    def on_mount(self) -> None:
        self.go(self.folder)

    @work(exclusive=True, group="folder")
    async def go(self, folder: Path, to: str = "") -> None:
        """Lists another folder, the cursor on the name `to`; marks are of one folder."""
        try:
            items = await asyncio.to_thread(contents, folder, self.only_folders)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL
            self.post_message(
                self.Went(self.folder, f"{folder} cannot be listed: {getattr(error, 'strerror', None) or error}")
            )
            return
        self.folder, self._items = folder, items
        self.marked.clear()
        at = next((i for i, item in enumerate(items) if item.name == to), 0)
        self.reset(len(items), at)
        self._page(at // PAGE)
        self.post_message(
            self.Went(folder, f"only {MAX_ITEMS:,} of its names are listed" if len(items) > MAX_ITEMS else "")
        )

    @on(Table.PageRequested)
    def _wanted(self, event: Table.PageRequested) -> None:
        event.stop()
        self._page(event.page)

    def _page(self, page: int) -> None:
        now = datetime.now(UTC)
        self.fill(page, [(item.name, _row(item, now)) for item in self._items[page * PAGE : (page + 1) * PAGE]])

    @property
    def chosen(self) -> list[Path]:
        """The files that are marked, or the one under the cursor."""
        names = sorted(self.marked) or [self.current]
        return [self.folder / name for name in names if name and not name.endswith("/")]

    @property
    def folder_under_cursor(self) -> Path | None:
        name = self.current
        return self.folder / name[:-1] if name.endswith("/") and name != f"{UP}/" else None

    def action_up(self) -> None:
        self.go(self.folder.parent, f"{self.folder.name}/")

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
            self.post_message(self.Picked())


def contents(folder: Path, only_folders: bool = False) -> list[Item]:
    """What a folder holds, folders first, by name, up to MOST of it; hidden ones are left out. Raises OSError, ValueError."""
    found: list[Item] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or len(found) >= MAX_ITEMS:
                continue
            try:
                about = entry.stat()
                name = f"{entry.name}/" if entry.is_dir() else entry.name
            except OSError:  # a link that leads nowhere
                continue
            if name.endswith("/") or not only_folders:
                found.append(Item(name, about.st_size, about.st_mtime))
    found.sort(key=lambda item: (not item.is_folder, item.name.casefold()))
    return [Item(f"{UP}/", 0, 0.0)] * (folder != folder.parent) + found


def _row(item: Item, now: datetime) -> tuple[str, ...]:
    size = "" if item.is_folder else _size(item.size)
    return (item.name, size, duration(now.timestamp() - item.changed) if item.changed else "")


def _size(size: int) -> str:
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{size} B"
