"""The export dialog: target program, folder and options."""

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

from softprompt.formats.writers.programs import LANGUAGE_MODEL_PROGRAMS, PROGRAMS, Program
from softprompt.text_states import KNOWN_ENCODERS
from softprompt_tui.rendering.sanitize import sanitize, strip_control_chars
from softprompt_tui.screens.file_picker import FilePickerScreen, abbreviate_home
from softprompt_tui.state.fields import Field
from softprompt_tui.widgets.field_help import FieldHelp
from softprompt_tui.widgets.key_bar import DialogKeys
from softprompt_tui.widgets.lazy_table import Column, Row, Table
from softprompt_tui.widgets.line_input import LineInput
from softprompt_tui.widgets.pane import escape_title

FITS = "fits"
COLUMNS = (
    Column("for", 12),
    Column("file", 16, from_width=60),
    Column("width", 0, tone=lambda words: "good" if words.startswith(FITS) else ""),
)

PROGRAM = Field("for", "the program that is to read the file", "up and down choose", next(iter(PROGRAMS)))
FIELDS = {
    "out": Field("write to", "where to write", "a folder, or a file name"),
    "other": Field("pair", "for SDXL: the other half of the pair", "a name in the library"),
    "token": Field("word", "for diffusers: the word to type in a prompt", "one word", "<name>"),
    "question": Field("question", "for vllm and sglang: the text in the request", "a text; empty: none"),
}
_OF_TEXT_ENCODERS, _OF_LANGUAGE_MODELS = ("out", "other", "token"), ("out", "question")


@dataclass(frozen=True)
class ExportRequest:
    """The user's choices in the export dialog.

    Attributes:
        to: the target program.
        out: a file or folder.
        other: the second soft prompt of an SDXL pair, or "".
        token: the placeholder word for diffusers; "" for the default.
        question: the question in a request to a server, or "".
    """

    to: str
    out: str
    other: str = ""
    token: str = ""
    question: str = ""


class ExportScreen(ModalScreen[ExportRequest | None]):
    """Asks for the target program, destination and options. Returns an ExportRequest, or None on escape.

    Args:
        is_language_model: whether the soft prompt is for a language model, which other programs read.
        refused: choices to show again, because they were refused.
        trouble: why they were refused.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,ctrl+s", "take", "Write", key_display="enter", priority=True),
        Binding("ctrl+f", "folder", "Choose the folder", priority=True),
        Binding("tab", "app.field(1)", "Next", priority=True),
        Binding("f1", "app.explain('export')", "Help", key_display="F1"),
        Binding("escape", "dismiss(None)", "Cancel", key_display="esc"),
    ]

    def __init__(
        self,
        name: str,
        width: int,
        folder: Path,
        is_language_model: bool,
        refused: ExportRequest | None = None,
        trouble: str = "",
    ) -> None:
        super().__init__(classes="dialog")
        self.programs = LANGUAGE_MODEL_PROGRAMS if is_language_model else PROGRAMS
        self.names = _OF_LANGUAGE_MODELS if is_language_model else _OF_TEXT_ENCODERS
        self.heading, self.width, self.folder = f"Export {sanitize(name)}, width {width}", width, folder
        self.refused, self.trouble = refused, trouble

    def compose(self) -> ComposeResult:
        with Vertical(classes="tall") as dialog:
            dialog.border_title = escape_title(self.heading)
            yield Table(COLUMNS, id="programs")
            typed = self.refused or ExportRequest("", abbreviate_home(self.folder))
            for name in self.names:
                with Horizontal(classes="fields"):
                    yield Label(f"{FIELDS[name].label:<8}")
                    value = strip_control_chars(getattr(typed, name))
                    yield LineInput(value, id=name)
            if self.trouble:
                yield Static(sanitize(self.trouble), id="trouble", markup=False)
            with Vertical(classes="footer"):
                yield FieldHelp(id="meaning")
                yield DialogKeys()

    def on_mount(self) -> None:
        table = self.query_one(Table)
        names = list(self.programs)
        table.reset(len(names), names.index(self.refused.to) if self.refused else None)
        fits = {name: _fit(program, self.width) for name, program in self.programs.items()}
        rows = [
            Row(name, (name, _file_type(self.programs[name]), fit), is_dim=not fit.startswith(FITS))
            for name, fit in fits.items()
        ]
        table.fill(0, rows)
        table.focus()

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if isinstance(event, Table.Chosen):
            self.action_take()

    def on_descendant_focus(self) -> None:
        name = self.focused.id if self.focused else None
        self.query_one(FieldHelp).show(FIELDS.get(name or "", PROGRAM))

    @work(group="dialogs")
    async def action_folder(self) -> None:
        chosen = await self.app.push_screen_wait(FilePickerScreen("Export to", self.folder, only_folders=True))
        if chosen:
            self.folder = chosen.folder
            self.query_one("#out", Input).value = strip_control_chars(abbreviate_home(chosen.folder))

    def action_take(self) -> None:
        typed = {field.id or "": field.value.strip() for field in self.query(Input)}
        self.dismiss(ExportRequest(self.query_one(Table).current, **typed))


def _file_type(program: Program) -> str:
    return Path(f"name{program.suffix}").suffix.removeprefix(".") or "folder"


def _fit(program: Program, width: int) -> str:
    """Describe whether a program can use vectors of this width."""
    widths = program.widths
    if program.needs_model:
        return f"{FITS}; loads the model first"
    if not widths:
        return f"{FITS} any width"
    if width in widths:
        return f"{FITS} {KNOWN_ENCODERS[width].model.partition('/')[0]}"
    *all_but_last, last = map(str, widths)
    return f"needs width {', '.join(all_but_last)} or {last}"
