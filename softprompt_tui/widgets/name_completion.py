"""The line in which a composition is typed, and the names that fit behind an open bracket."""

from __future__ import annotations

import asyncio
import re

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from softprompt.errors import SoftPromptError
from softprompt.library import EntrySummary, Library
from softprompt_tui.rendering.sanitize import sanitize

MAX_CANDIDATES = 6  # names offered at once
_OPEN = re.compile(r"(?<!\\)\[(?:[^\[\]]*\+ *)?([^\[\]:*+]*)$")  # a name, perhaps a later one of a mix
_UNFINISHED = re.compile(r"(?<!\\)\[[^\[\]]*$")


class CompositionInput(Input):
    """A line that hands the keys of choosing to the names under it while there are any."""

    def __init__(self, value: str, names: OptionList) -> None:
        super().__init__(value, id="composition", compact=True, placeholder="[landscape] mountain view")
        self.names = names

    async def _on_key(self, event: events.Key) -> None:
        if self.names.display and event.key in ("up", "down", "tab", "enter", "escape"):
            event.prevent_default()  # else Textual gives the key to Input as well
            event.stop()
            match event.key:
                case "up":
                    self.names.action_cursor_up()
                case "down":
                    self.names.action_cursor_down()
                case "escape":
                    self.names.display = False
                case _:
                    self.names.action_select()


def _told(one: EntrySummary) -> str:
    return f"{one.name}   {one.tokens} soft token{'s' * (one.tokens != 1)}{'' if one.model else ', model unknown'}"


class WithCandidates(Vertical):
    """The composition's line with what can stand behind its open bracket: names that begin so, the newest first."""

    def __init__(self, library: Library, value: str) -> None:
        super().__init__(id="writing")
        self._library = library
        self._offered: dict[str, str] = {}
        self._names = OptionList(id="names", compact=True, markup=False)
        self._names.can_focus = False
        self.line = CompositionInput(value, self._names)

    def compose(self) -> ComposeResult:
        yield self.line
        self._names.display = False
        yield self._names

    @property
    def is_unfinished(self) -> bool:
        """Whether the cursor is behind a bracket that is still open."""
        return self.line.has_focus and _UNFINISHED.search(self.line.value[: self.line.cursor_position]) is not None

    @on(Input.Changed)
    def _typed(self) -> None:
        self._look()

    @work(exclusive=True, group="names")
    async def _look(self) -> None:
        """What is typed on while the library is read is looked for by the next one."""
        begun = _OPEN.search(self.line.value[: self.line.cursor_position])
        if begun is None or not self.line.has_focus:
            self._names.display = False
            return
        typed = begun[1].lstrip()
        try:
            found = await asyncio.to_thread(self._library.list, typed, limit=50)
        except SoftPromptError:
            found = None
        fitting = [
            one
            for one in (found.entries if found else ())
            if one.name.casefold().startswith(typed.casefold()) and sanitize(one.name) == one.name
        ][:MAX_CANDIDATES]
        at = self._names.highlighted
        chosen = self._names.get_option_at_index(at).id if at else None  # one that was gone to by hand stays chosen
        self._names.clear_options()
        self._names.add_options(Option(_told(one), one.id) for one in fitting)
        names = [one.name for one in fitting]
        self._offered = {
            one.id: one.name if names.count(one.name) == 1 else one.id for one in fitting
        }  # two may bear one name
        places = {one.id: i for i, one in enumerate(fitting)}
        self._names.highlighted = places.get(chosen or "", 0) if fitting else None
        self._names.display = bool(fitting)

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        line = self.line
        before, after = line.value[: line.cursor_position], line.value[line.cursor_position :]
        begun = _OPEN.search(before)
        if begun is not None:
            before = f"{before[: begun.start(1)]}{self._offered[event.option_id or '']}]"
            line.value = before + after.removeprefix("]")
            line.cursor_position = len(before)
        self._names.display = False

    def on_descendant_blur(self) -> None:
        self._names.display = False
