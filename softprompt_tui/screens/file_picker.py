"""A dialog to choose files to import, or a folder to export to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from softprompt_tui.rendering.sanitize import sanitize, strip_control_chars
from softprompt_tui.widgets.directory_list import DirectoryList
from softprompt_tui.widgets.key_bar import DialogKeys
from softprompt_tui.widgets.line_input import LineInput
from softprompt_tui.widgets.pane import escape_title


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
        Binding("enter", "open", "Open or pick", key_display="enter", priority=True),
        Binding("ctrl+a", "all_files(True)", "All files"),
        Binding("ctrl+a", "all_files(False)", "Only files to import"),
        Binding("ctrl+s", "take", "Pick files or PEFT folder", priority=True),
        Binding("ctrl+s", "take_folder", "Pick this folder", priority=True),
        Binding("tab", "app.field(1)", "Path", priority=True),
        Binding("escape", "dismiss(None)", "Cancel", key_display="esc"),
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
        with Vertical(classes="tall") as dialog:
            dialog.border_title = escape_title(self.heading)
            path = strip_control_chars(abbreviate_home(self.folder))
            yield LineInput(path, id="path")
            yield DirectoryList(self.folder, self.only_folders, id="folder")
            yield Static("", id="trouble", markup=False)
            with Vertical(classes="footer"):
                yield Static("", id="shown-names", markup=False)
                yield DialogKeys()

    def on_mount(self) -> None:
        self.query_one("#trouble").display = False
        self.query_one(DirectoryList).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "all_files":
            shows_all = bool(self.query(DirectoryList)) and self.query_one(DirectoryList).shows_all_files
            return not self.only_folders and parameters == (not shows_all,)
        return self.only_folders if action == "take_folder" else action != "take" or not self.only_folders

    def action_all_files(self, shows_all: bool) -> None:
        self.query_one(DirectoryList).show_all_files(shows_all)

    def on_key(self, event: events.Key) -> None:
        """Begin a path in its field."""
        if event.character is not None and event.character in "/~" and self.focused is self.query_one(DirectoryList):
            event.stop()
            field = self.query_one("#path", Input)
            self.set_focus(field)  # immediately, because the next key is meant for it
            field.value = event.character
            self.call_after_refresh(field.action_end)  # the focus selects the text

    def action_open(self) -> None:
        """Go into the folder under the cursor, pick the file, or follow the typed path."""
        if self.focused is self.query_one(DirectoryList):
            self.query_one(DirectoryList).choose()
        else:
            self._go(self.query_one("#path", Input).value)

    def _go(self, typed: str) -> None:
        path = Path(expand_home(typed)).absolute()
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

    @on(DirectoryList.Filtered)
    def _filtered(self, event: DirectoryList.Filtered) -> None:
        event.stop()
        self.query_one("#shown-names", Static).update(sanitize(self.query_one(DirectoryList).describe_filter()))

    @on(DirectoryList.FileChosen)
    def _file_chosen(self, event: DirectoryList.FileChosen) -> None:
        event.stop()
        self.action_take()

    def action_take_folder(self) -> None:
        self.dismiss(FileSelection(self.query_one(DirectoryList).folder))

    def action_take(self) -> None:
        listing = self.query_one(DirectoryList)
        if listing.chosen_files:
            self.dismiss(FileSelection(listing.folder, tuple(listing.chosen_files)))
        elif listing.highlighted_folder:
            self.dismiss(FileSelection(listing.folder, (listing.highlighted_folder,)))
