"""Choosing files to import, or a folder to export to."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from softprompt_tui.rendering.sanitize import sanitize, without_steering
from softprompt_tui.widgets.directory_list import Folder


def typed_path(path: str) -> str:
    """A path as it was typed, with ~ for a home."""
    return os.path.expanduser(path)  # noqa: PTH111  # that of pathlib raises for a user that there is not


def shortened(folder: Path) -> str:
    """The path with ~ for the user's home, as people write it."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}".removesuffix("/.") if folder.is_relative_to(home) else str(folder)


@dataclass(frozen=True)
class Chosen:
    """Where one was, and the files that were chosen there; none where the folder itself was."""

    folder: Path
    files: tuple[Path, ...] = ()


class FilesScreen(ModalScreen[Chosen | None]):
    """Walks through folders; None where escape was pressed. With `only_folders` it is the folder that is chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("ctrl+s", "take", "Take", priority=True),
    ]

    def __init__(self, title: str, folder: Path, only_folders: bool = False) -> None:
        super().__init__(classes="dialog")
        self.heading, self.folder, self.only_folders = title, folder, only_folders

    def compose(self) -> ComposeResult:
        keys = "enter goes into a folder, backspace out of it, "
        keys += (
            "ctrl+s takes this one"
            if self.only_folders
            else "space marks several; enter on a file takes it, or those marked; ctrl+s takes a folder of PEFT's"
        )
        with Vertical(classes="tall"):
            yield Static(self.heading, markup=False)
            yield Input(without_steering(shortened(self.folder)), id="path", compact=True, select_on_focus=True)
            yield Folder(self.folder, self.only_folders, id="folder")
            yield Static("", id="trouble", markup=False)
            yield Static(keys, classes="keys", markup=False)

    def on_mount(self) -> None:
        self.query_one("#trouble").display = False
        self.query_one(Folder).focus()

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        path = Path(typed_path(event.value)).absolute()
        if os.path.isfile(path) and not self.only_folders:  # noqa: PTH113  # that of pathlib raises for some paths
            self.dismiss(Chosen(path.parent, (path,)))
            return
        self.query_one(Folder).go(path)
        self.query_one(Folder).focus()

    @on(Folder.Went)
    def _went(self, event: Folder.Went) -> None:
        event.stop()
        self.query_one("#path", Input).value = without_steering(shortened(event.folder))
        trouble = self.query_one("#trouble", Static)
        trouble.display = bool(event.error)
        trouble.update(sanitize(event.error))

    @on(Folder.Picked)
    def _picked(self, event: Folder.Picked) -> None:
        event.stop()
        self.action_take()

    def action_take(self) -> None:
        folder = self.query_one(Folder)
        if self.only_folders:
            self.dismiss(Chosen(folder.folder))
        elif folder.chosen:
            self.dismiss(Chosen(folder.folder, tuple(folder.chosen)))
        elif folder.folder_under_cursor:
            self.dismiss(Chosen(folder.folder, (folder.folder_under_cursor,)))
