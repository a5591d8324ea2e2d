"""The composition's input line, with completion of soft prompt names after an open bracket."""

from __future__ import annotations

import asyncio
import re

from rich.cells import cell_len
from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widget import Widget
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from softprompt.errors import SoftPromptError
from softprompt.library import EntrySummary, Library
from softprompt_tui.rendering.cells import fit_cell
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.widgets.line_input import COMPACT, LineInput

MAX_CANDIDATES = 6
MIN_LINES = 3  # of the list, however little room the pane has below the line
NAME_SHARE = 0.6  # of a line of the list, if the prompt needs the rest
MAX_SUGGESTED = 30  # some may have names that cannot be shown
_OPEN_NAME = re.compile(r"(?<!\\)\[(?:[^\[\]]*\+ *)?([^\[\]:*+]*)$")  # the name being typed, including inside a mix
_OPEN_BRACKET = re.compile(r"(?<!\\)\[[^\[\]]*$")


MAX_PROMPT_LENGTH = 200  # characters; the line itself cuts it


class CompositionInput(LineInput):
    """An input line that passes up, down, tab, enter and escape to its dropdown while the dropdown is open."""

    def __init__(self, value: str, dropdown: OptionList) -> None:
        super().__init__(value, id="composition", placeholder="[name] on a mountain")
        self.dropdown = dropdown

    async def _on_key(self, event: events.Key) -> None:
        if self.dropdown.display and event.key in ("up", "down", "tab", "enter", "escape"):
            event.prevent_default()  # otherwise Textual also passes the key to Input
            event.stop()
            match event.key:
                case "up":
                    self.dropdown.action_cursor_up()
                case "down":
                    self.dropdown.action_cursor_down()
                case "escape":
                    self.dropdown.display = False
                case _:
                    self.dropdown.action_select()


def _option_label(entry: EntrySummary, name_width: int) -> str:
    """Return the name in columns of this width, the number of soft tokens, and the start of the prompt."""
    model = "" if entry.model else "model unknown  "
    prompt = sanitize(entry.hard_prompt[:MAX_PROMPT_LENGTH])
    return f"{fit_cell(entry.name, name_width, cut_middle=True)} {entry.tokens or '-':>2}  {model}{prompt}"


class NameCompletion(Vertical):
    """The input line and its dropdown of soft prompts with the text after the bracket in their name or prompt."""

    def __init__(self, library: Library, value: str) -> None:
        super().__init__(id="writing")
        self._library = library
        self._insertions: dict[str, str] = {}
        self._names = OptionList(id="names", markup=False)
        self._names.add_class(COMPACT, update=False)
        self._names.can_focus = False
        self.line = CompositionInput(value, self._names)

    def compose(self) -> ComposeResult:
        yield self.line
        self._names.display = False
        yield self._names

    @property
    def is_unfinished(self) -> bool:
        """Whether the cursor follows a bracket that is still open."""
        return self.line.has_focus and _OPEN_BRACKET.search(self.line.value[: self.line.cursor_position]) is not None

    @on(Input.Changed)
    def _typed(self) -> None:
        self._update_names()

    @work(exclusive=True, group="names")
    async def _update_names(self) -> None:
        """Show the names that match the text before the cursor. A newer call cancels this one."""
        match = _OPEN_NAME.search(self.line.value[: self.line.cursor_position])
        if match is None or not self.line.has_focus:
            self._names.display = False
            return
        typed = match[1].lstrip()
        try:
            suggested = await asyncio.to_thread(self._library.suggest, typed, MAX_SUGGESTED)
        except SoftPromptError:
            suggested = ()
        candidates = [entry for entry in suggested if sanitize(entry.name) == entry.name][:MAX_CANDIDATES]
        index = self._names.highlighted
        # a candidate other than the first was highlighted by the user, so keep it highlighted
        highlighted = self._names.get_option_at_index(index).id if index else None
        names = [entry.name for entry in candidates]
        width = self._fit_into_pane()
        name_width = min(max(map(cell_len, names), default=0), round(NAME_SHARE * width))
        self._names.clear_options()
        self._names.add_options(Option(_option_label(entry, name_width), entry.id) for entry in candidates)
        # several entries may share a name
        self._insertions = {entry.id: entry.name if names.count(entry.name) == 1 else entry.id for entry in candidates}
        positions = {entry.id: i for i, entry in enumerate(candidates)}
        self._names.highlighted = positions.get(highlighted or "", 0) if candidates else None
        self._names.display = bool(candidates)

    def _fit_into_pane(self) -> int:
        """Give the list the width of the pane and at most the lines below the input. Return the width of a line.

        The list covers only what belongs to the composition, which is not finished yet.
        """
        pane = next(node for node in self.ancestors if isinstance(node, Widget) and node.has_class("pane"))
        area = pane.content_region
        styles = self._names.styles
        styles.width, styles.offset = area.width, (area.x - self.region.x, 0)
        styles.max_height = max(MIN_LINES, area.bottom - self.line.region.bottom)
        return area.width - 2  # its padding

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        line = self.line
        before, after = line.value[: line.cursor_position], line.value[line.cursor_position :]
        match = _OPEN_NAME.search(before)
        if match is not None:
            before = f"{before[: match.start(1)]}{self._insertions[event.option_id or '']}]"
            line.value = before + after.removeprefix("]")
            line.cursor_position = len(before)
        self._names.display = False

    def on_descendant_blur(self) -> None:
        self._names.display = False
