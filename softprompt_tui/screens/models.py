"""The models screen: every model that can be used, with search, pulling and deleting."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from softprompt.errors import shorten
from softprompt.text_states import FAMILY_NAMES
from softprompt_tui.messages import ModelAction, ModelChosen, ModelsRequested, OnModel
from softprompt_tui.rendering.download import draw_bar, format_progress, format_share
from softprompt_tui.rendering.numbers import format_bytes, format_duration
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.help import HelpScreen
from softprompt_tui.screens.words import WordsScreen
from softprompt_tui.state.models import Model, Pull, find_by_words, named_model
from softprompt_tui.widgets.key_bar import KeyBar
from softprompt_tui.widgets.lazy_table import PAGE_ROWS, Column, Row, Table
from softprompt_tui.widgets.line_input import LineInput
from softprompt_tui.widgets.pane import escape_title
from softprompt_tui.widgets.steady_text import update_if_changed

if TYPE_CHECKING:
    from softprompt_tui.app_context import AppContext

LOADING = "Reading open_clip's list of models. The first time, this takes some seconds."
MAX_NAME_WIDTH = 44  # cells; beyond it, the figures would be far from the name
NO_MATCHES = "No model matches.\n\nescape ends the search."
SEARCH_HINT = "/ searches for a name"
SILENT_SECONDS = 5  # a pull that has received nothing for this long says so
MAX_NOTICE_LINES = 7  # as in the style sheet
REFRESH_SECONDS = 2.0  # another program can pull or delete models too
ON_DISK, BUILT_IN, FAILED = "on disk", "built in", "failed"
TEXT_ENCODER, LANGUAGE_MODEL = "text", "language"  # in the column "type"
BAR_WIDTH, WIDE_BAR_WIDTH = 8, 30
MAX_IN_USE_LENGTH = 32  # characters of a model's name in the lower edge


def _here_tone(cell: str) -> str:
    cell = cell.strip()
    if cell in (ON_DISK, BUILT_IN):
        return "good"
    return "bad" if cell == FAILED else "going" if cell.endswith(("%", "s", "…")) else ""


NARROW = (Column("model", 0, cut_middle=True), Column("size", 7, right=True), Column(" here", 13, tone=_here_tone))
NORMAL = (
    Column("model", 0, cut_middle=True, max_width=MAX_NAME_WIDTH),
    Column("type", 8),
    Column("width", 5, right=True),
    Column("size", 7, right=True),
    Column(" here", 15, tone=_here_tone),
)
WIDE = (
    Column("model", MAX_NAME_WIDTH, cut_middle=True),
    Column("width", 5, right=True),
    Column("layers", 6, right=True),
    Column("context", 7, right=True),
    Column("text tower", 10, right=True, from_width=136),
    Column("size", 7, right=True),
    Column("read by", 18),
    Column(" here", 0, tone=_here_tone),
)
ACTIONS = {"p": (OnModel.PULL, "Pull"), "x": (OnModel.CANCEL, "Cancel"), "d": (OnModel.DELETE, "Delete")}
BAR_FROM_WIDTH = 120  # columns of the terminal, from which a row has room for the bar of a pull


class ModelsScreen(ModalScreen[None]):
    """Lists the models. The controller calls `show` when something has changed.

    Posts ModelAction, ModelChosen and ModelsRequested. Closing the screen does not stop a pull.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "use", "Use", priority=True),
        *(Binding(key, f"act('{action}')", label) for key, (action, label) in ACTIONS.items()),
        Binding("slash", "search", "Find", key_display="/"),
        Binding("question_mark", "words", "Words", key_display="?"),
        Binding("f1", "help", "Help", key_display="F1"),
        Binding("escape", "back", "Back", key_display="esc"),
        Binding("ctrl+o", "dismiss", show=False),
        Binding("ctrl+q", "app.leave", "Quit", show=False),
    ]

    def __init__(self, context: AppContext, purpose: str = "", for_entry: str = "") -> None:
        super().__init__()
        self.context, self.purpose, self.for_entry = context, purpose, for_entry
        self.chosen = ""
        self._models: Sequence[Model] = ()
        self._pulls: Mapping[str, Pull] = {}
        self._notice = self._old_notice = ""  # the old one belongs to another row
        self._found: list[Model] = []
        self._cells: list[Row] = []
        self._search_text = ""
        self._possible: tuple[bool | None, ...] = ()  # actions on the model under the cursor, when shown last

    def compose(self) -> ComposeResult:
        with Vertical(id="models", classes="pane"):
            find = LineInput(id="find", placeholder="part of a name, a program, or hf:OWNER/NAME: vitl14, sdxl")
            find.display = find.select_on_focus = False
            yield find
            yield Table(NORMAL, LOADING, id="model-rows")
            yield Static("", id="model-facts", markup=False)
            yield Static("", id="model-notice", markup=False)
        yield KeyBar(compact=self.app.size.width < 72)

    def on_mount(self) -> None:
        self.query_one("#models").border_title = self.purpose or "Models"
        self.table.focus()
        self.set_interval(REFRESH_SECONDS, self._tick)
        self.call_after_refresh(self._resized)

    def _tick(self) -> None:
        self.context.post(ModelsRequested())
        if any(pull.is_active for pull in self._pulls.values()):  # it may be silent, so that nothing else repaints it
            self._update()

    def on_resize(self) -> None:
        self.call_after_refresh(self._resized)

    def _resized(self) -> None:
        width = self.size.width
        self.table.columns = NARROW if width < 72 else NORMAL if width < 114 else WIDE
        self._list(self.table.current or self.chosen)

    @property
    def table(self) -> Table:
        return self.query_one(Table)

    @property
    def current(self) -> Model | None:
        """The model under the cursor."""
        return self._found[self.table.cursor] if 0 <= self.table.cursor < len(self._found) else None

    def show(self, models: Sequence[Model], pulls: Mapping[str, Pull], notice: str, chosen: str) -> None:
        """Show the models, the downloads in progress, a notice, and which model the prompt uses ("" for none)."""
        names = [model.name for model in self._models]
        self._models, self._pulls, self._notice, self.chosen = models, pulls, notice, chosen
        if not self.query("#model-rows"):  # not composed yet
            return
        if names == [model.name for model in models]:
            self._update()
        else:
            self._list(self.table.current or self.chosen)

    def _list(self, cursor: str) -> None:
        """Fill the table anew, with the cursor on the model `cursor`."""
        self._find()
        table = self.table
        table.marked = {self.chosen}
        table.empty = NO_MATCHES if self._search_text and self._models else LOADING
        self._cells = [Row(model.name, self._row(model)) for model in self._found]
        index = next((i for i, model in enumerate(self._found) if model.name == cursor), 0)
        table.reset(len(self._cells), index)
        for start in range(0, len(self._cells), PAGE_ROWS):
            table.fill(start // PAGE_ROWS, self._cells[start : start + PAGE_ROWS])
        self._describe()

    def _find(self) -> None:
        words = self._search_text.split()
        named = named_model(self._models, words[0]) if len(words) == 1 else None
        if named is not None:
            self._found = [named]
        else:
            self._found = find_by_words(self._models, words, _searched_text) if words else list(self._models)

    def _update(self) -> None:
        """Redraw the rows that have changed, each in its place."""
        if self.table.marked != {self.chosen}:
            self.table.marked = {self.chosen}
            self.table.refresh()
        by_name = {model.name: model for model in self._models}
        self._found = [by_name.get(model.name, model) for model in self._found]  # a name of the hub is not listed
        for i, model in enumerate(self._found):
            row = Row(model.name, self._row(model))
            if row != self._cells[i]:
                self._cells[i] = row
                self.table.replace_row(i, row)
        self._describe()

    def _row(self, model: Model) -> tuple[str, ...]:
        pull = self._pulls.get(model.name)
        size = format_bytes(model.bytes) if model.bytes is not None else ""
        if pull and pull.is_active and pull.total:
            size = format_bytes(pull.total)
        if self.table.columns is NARROW:
            return (model.name, size, f" {self._here(model, pull)}")
        if self.table.columns is NORMAL:
            kind = LANGUAGE_MODEL if model.is_language_model else TEXT_ENCODER
            return (model.name, kind, _count(model.width), size, f" {self._here(model, pull)}")
        return (
            model.name,
            _count(model.width),
            _count(model.layers),
            _count(model.context),
            _millions(model.parameters),
            size,
            _read_by(model),
            f" {self._here(model, pull)}",
        )

    def _here(self, model: Model, pull: Pull | None) -> str:
        """Describe whether a model is on disk, and how far its download is."""
        if pull is not None and not pull.is_active:
            return FAILED
        if pull is not None:
            if pull.is_stopping:
                return "stopping …"
            if pull.stage:
                return "converting …"
            if pull.note:
                return "waiting …"
            if not pull.total:
                return "asking …"
            if pull.received == pull.total:
                return "checking …"
            left = pull.seconds_left()
            figures = f"{format_share(pull.share)}{f'  {format_duration(left)}' if left else ''}"
            return f"{draw_bar(pull.share, BAR_WIDTH)} {figures}" if self.size.width >= BAR_FROM_WIDTH else figures
        if model.is_built_in:
            return BUILT_IN
        if model.is_on_disk:
            return ON_DISK
        return f"part {format_bytes(model.partial_bytes)}" if model.partial_bytes else "–"

    def _describe(self) -> None:
        """Show the facts of the model under the cursor that do not fit in its row, and the notice."""
        model = self.current
        pull = self._pulls.get(model.name) if model else None
        possible = tuple(self.check_action("act", (action,)) for action, _ in ACTIONS.values())
        if possible != self._possible:
            self._possible = possible
            self.refresh_bindings()
        self._set("model-facts", self._facts(model, pull) if model else Text())
        is_old = self._notice == self._old_notice
        text = pull.error if pull and pull.error and is_old else self._notice
        width = self.query_one("#models").content_size.width - 2  # the notice has a cell of padding on each side
        self._set("model-notice", Text(_fit(sanitize(text), width, MAX_NOTICE_LINES), "bold"))
        self.query_one("#model-notice").display = bool(text)
        here = sum(model.is_on_disk for model in self._models)
        count = f"{len(self._found)} found" if self._search_text else f"{here} of {len(self._models)} on disk"
        count = count if self._models else "loading"
        in_use = f"in use: {shorten(sanitize(self.chosen), MAX_IN_USE_LENGTH)}   " if self.chosen else ""
        self.query_one("#models").border_subtitle = escape_title(f"{in_use}{count}")

    def _facts(self, model: Model, pull: Pull | None) -> Text:
        text = Text(sanitize(model.name), "bold", no_wrap=True, overflow="ellipsis")
        if model.name == self.chosen:
            text.append("   in use by this prompt", "not bold dim")
        text.append("\n")
        if pull and pull.is_active:
            progress = format_progress(pull.received, pull.total, pull.rate(), pull.seconds_left())
            bar = f"{draw_bar(pull.share, WIDE_BAR_WIDTH)} " if self.size.width >= 72 and pull.total else ""
            silence = pull.silent_seconds()
            silent = f"nothing has arrived for {silence:.0f} s; x cancels" if silence >= SILENT_SECONDS else ""
            return text.append(pull.stage or pull.note or silent or f"{bar}{progress}", "not bold")
        facts = [  # a narrow terminal cuts the last ones
            "language model" if model.is_language_model else "",
            f"read by {_read_by(model)}" if model.read_by else "",
            f"width {model.width}, {model.layers} layers, context {model.context}" if model.width else "",
            f"{_millions(model.parameters)} parameters" if model.parameters else "",
        ]
        if model.needs_transformers and find_spec("transformers") is None:
            facts.insert(0, "needs the package transformers")
        return text.append("   ".join(filter(None, facts)), "not bold dim")

    def _set(self, name: str, text: Text) -> None:
        update_if_changed(self.query_one(f"#{name}", Static), text)

    # keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Show the key of an action only if it does something with the model under the cursor."""
        model = self.current
        if action != "act" or model is None:
            return action != "act"
        pull = self._pulls.get(model.name)
        is_pulling = pull is not None and pull.is_active
        match parameters[0]:
            case OnModel.PULL:
                return not (model.is_built_in or model.is_on_disk or is_pulling)
            case OnModel.CANCEL:
                return pull is not None and pull.is_active and not pull.is_stopping
            case _:
                return not (model.is_built_in or is_pulling) and (model.is_on_disk or model.partial_bytes > 0)

    @on(Table.Moved)
    def _moved(self, event: Table.Moved) -> None:
        event.stop()
        if isinstance(event, Table.Chosen):
            self.action_use()
        else:
            self._old_notice = self._notice
            self._describe()

    def action_use(self) -> None:
        """Use the model under the cursor for the prompt. In the search field, go to what was found first."""
        if self.focused is not self.table:
            self._search(self.query_one("#find", Input).value)  # the message about the last letter may be on its way
            self.set_focus(self.table)
        elif (model := self.current) is not None:
            self.dismiss(None)
            self.context.post(ModelChosen(model.name, model.is_on_disk, self.for_entry))

    def action_act(self, action: str) -> None:
        if (model := self.current) is not None:
            self._old_notice = ""
            self.context.post(ModelAction(OnModel(action), model.name))

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen("models"))

    def action_words(self) -> None:
        self.app.push_screen(WordsScreen("models"))

    def action_back(self) -> None:
        """End the search, or close the screen."""
        field = self.query_one("#find", Input)
        if field.display:
            field.value = ""
            field.display = False
            self.set_focus(self.table)
        else:
            self.dismiss(None)

    def action_search(self) -> None:
        field = self.query_one("#find", Input)
        field.display = True
        self.set_focus(field)  # immediately, because the next key is meant for it
        field.cursor_position = len(field.value)

    def on_key(self, event: events.Key) -> None:
        field = self.query_one("#find", Input)
        if event.key in ("down", "up") and self.focused is field:
            self.set_focus(self.table)
            event.stop()
        elif self.focused is self.table and event.key in ACTIONS and event.key not in self.active_bindings:
            self.action_act(ACTIONS[event.key][0])  # the controller says why it does nothing
            event.stop()
        elif self.focused is self.table and event.key not in self.active_bindings and _is_typed(event):
            self._notice = SEARCH_HINT  # typing alone does not search: a name can begin with p, x or d
            self._describe()
            event.stop()

    @on(Input.Changed, "#find")
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._search(event.value)

    def _search(self, text: str) -> None:
        if text != self._search_text:
            self._search_text = text
            self._list("" if text else self.table.current)


def _is_typed(event: events.Key) -> bool:
    """Return whether a key is part of a name."""
    return event.is_printable and event.character is not None and not event.character.isspace()


def _fit(text: str, width: int, max_lines: int) -> str:
    """Wrap a text. If it does not fit, end it with an ellipsis."""
    if cell_len(text) > len(text):
        width //= 2  # a wide character takes two columns
    return "\n".join(textwrap.wrap(text, max(8, width), max_lines=max_lines, placeholder=" …"))


def _read_by(model: Model) -> str:
    """Name the image programs that use a text encoder, or say that the model is a language model."""
    if model.is_language_model:
        return "language model"
    return ", ".join(FAMILY_NAMES[family] for family in FAMILY_NAMES if family in model.read_by)


def _count(number: int) -> str:
    return f"{number}" if number else "–"


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.0f} M" if parameters else "–"


def _searched_text(model: Model) -> str:
    return f"{model.name} {_read_by(model)}"
