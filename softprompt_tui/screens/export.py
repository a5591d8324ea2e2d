"""Where a soft prompt is to go: the program, the folder, and what else it needs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from softprompt.formats.writers.programs import PROGRAMS
from softprompt.text_states import ENCODERS
from softprompt_tui.rendering.sanitize import sanitize, without_steering
from softprompt_tui.screens.file_picker import FilesScreen, shortened
from softprompt_tui.widgets.lazy_table import Column, Table

COLUMNS = (
    Column("for", 12),
    Column("file", 16, from_width=60),
    Column("", 0, tone=lambda words: "good" if words.startswith("fits") else ""),
)


@dataclass(frozen=True)
class Export:
    """What was chosen: a program, the file or folder to write to, the other half of a pair ("" for none), and a word ("" for the usual)."""

    to: str
    out: str
    other: str = ""
    token: str = ""


class ExportScreen(ModalScreen[Export | None]):
    """None where escape was pressed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("ctrl+s", "take", "Write", priority=True),
        Binding("ctrl+f", "folder", "Folder", priority=True),
    ]

    def __init__(self, name: str, width: int, folder: Path) -> None:
        super().__init__(classes="dialog")
        self.heading, self.width, self.folder = f"Export {sanitize(name)}", width, folder

    def compose(self) -> ComposeResult:
        with Vertical(classes="tall"):
            yield Static(self.heading, markup=False)
            yield Table(COLUMNS, id="programs")
            for name, label, value, meaning in (
                ("out", "to", shortened(self.folder), "a folder, or a file's name"),
                ("other", "with", "", "SDXL: the name of the other half"),
                ("token", "as", "", "diffusers: the word; usually <name>"),
            ):
                with Horizontal(classes="fields"):
                    yield Label(f"{label:<4}")
                    yield Input(
                        without_steering(value), id=name, compact=True, select_on_focus=True, placeholder=meaning
                    )
            yield Static(
                "enter or ctrl+s writes it, ctrl+f looks for a folder, escape leaves it", classes="keys", markup=False
            )

    def on_mount(self) -> None:
        table = self.query_one(Table)
        table.reset(len(PROGRAMS))
        table.fill(0, [(name, (name, _file(name), _fit(name, self.width))) for name in PROGRAMS])
        table.focus()

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if isinstance(event, Table.Chosen):
            self.action_take()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_take()

    @work(group="dialogs")
    async def action_folder(self) -> None:
        chosen = await self.app.push_screen_wait(FilesScreen("Where to", self.folder, only_folders=True))
        if chosen:
            self.folder = chosen.folder
            self.query_one("#out", Input).value = without_steering(shortened(chosen.folder))

    def action_take(self) -> None:
        typed = {one.id or "": one.value.strip() for one in self.query(Input)}
        self.dismiss(Export(self.query_one(Table).current, **typed))


def _file(name: str) -> str:
    suffix = PROGRAMS[name].suffix
    return Path(f"name{suffix}").suffix.removeprefix(".") or "folder"


def _fit(name: str, width: int) -> str:
    """Whether it can use vectors of this width, and what it needs otherwise."""
    widths = PROGRAMS[name].widths
    if not widths:
        return "fits: vectors of any width"
    if width in widths:
        return f"fits {ENCODERS[width].model.partition('/')[0]}"
    *all_but_last, last = map(str, widths)
    return f"needs width {', '.join(all_but_last)} or {last}"
