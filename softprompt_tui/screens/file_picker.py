"""A dialog to choose files to import, or a folder to export to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from softprompt_tui.rendering.sanitize import sanitize, strip_control_chars
from softprompt_tui.widgets.directory_list import DirectoryList


def expand_home(path: str) -> str:
    """Replace a leading ~ or ~user in a typed path."""
    return os.path.expanduser(path)  # noqa: PTH111  # pathlib raises for an unknown user


def abbreviate_home(folder: Path) -> str:
    """Return the path with ~ in place of the user's home folder."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}".removesuffix("/.") if folder.is_relative_to(home) else str(folder)


@dataclass(frozen=True)
class FileSelection:
    """A folder and the files chosen in it. Without files, the user chose the folder itself."""

    folder: Path
    files: tuple[Path, ...] = ()


class FilePickerScreen(ModalScreen[FileSelection | None]):
    """Asks for files, or for a folder with `only_folders`. Returns a FileSelection, or None on escape.

    Args:
        marked: files to mark again, because they were refused.
        trouble: why they were refused.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("ctrl+s", "take", "Pick", priority=True),
    ]

    def __init__(
        self,
        title: str,
        folder: Path,
        only_folders: bool = False,
        marked: Sequence[Path] = (),
        trouble: str = "",
    ) -> None:
        super().__init__(classes="dialog")
        self.heading, self.folder, self.only_folders = title, folder, only_folders
        self.marked, self.trouble = marked, trouble

    def compose(self) -> ComposeResult:
        keys = "enter opens a folder, backspace goes up, "
        keys += (
            "ctrl+s picks this folder"
            if self.only_folders
            else "space marks files, enter picks the file or all marked ones; ctrl+s picks a PEFT folder"
        )
        with Vertical(classes="tall"):
            yield Static(self.heading, markup=False)
            yield Input(
                strip_control_chars(abbreviate_home(self.folder)), id="path", compact=True, select_on_focus=True
            )
            yield DirectoryList(self.folder, self.only_folders, id="folder")
            yield Static("", id="trouble", markup=False)
            yield Static(keys, classes="keys", markup=False)

    def on_mount(self) -> None:
        self.query_one("#trouble").display = False
        self.query_one(DirectoryList).focus()

    @on(Input.Submitted)
    def _typed(self, event: Input.Submitted) -> None:
        event.stop()
        path = Path(expand_home(event.value)).absolute()
        if os.path.isfile(path) and not self.only_folders:  # noqa: PTH113  # pathlib raises for some paths
            self.dismiss(FileSelection(path.parent, (path,)))
            return
        self.query_one(DirectoryList).go(path)
        self.query_one(DirectoryList).focus()

    @on(DirectoryList.Listed)
    def _listed(self, event: DirectoryList.Listed) -> None:
        event.stop()
        self.query_one("#path", Input).value = strip_control_chars(abbreviate_home(event.folder))
        message = self.query_one("#trouble", Static)
        trouble = event.error or (self.trouble if event.folder == self.folder else "")
        message.display = bool(trouble)
        message.update(sanitize(trouble))
        if self.marked:
            self.query_one(DirectoryList).mark_again([path.name for path in self.marked])
            self.marked = ()

    @on(DirectoryList.FileChosen)
    def _file_chosen(self, event: DirectoryList.FileChosen) -> None:
        event.stop()
        self.action_take()

    def action_take(self) -> None:
        listing = self.query_one(DirectoryList)
        if self.only_folders:
            self.dismiss(FileSelection(listing.folder))
        elif listing.chosen_files:
            self.dismiss(FileSelection(listing.folder, tuple(listing.chosen_files)))
        elif listing.highlighted_folder:
            self.dismiss(FileSelection(listing.folder, (listing.highlighted_folder,)))
