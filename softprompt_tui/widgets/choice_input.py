"""A field whose value is chosen from a few: left, right and space step through them, a letter jumps."""

from __future__ import annotations

from typing import ClassVar

from rich.segment import Segment
from textual import events
from textual.binding import Binding, BindingType
from textual.strip import Strip

from softprompt_tui.state.fields import Field
from softprompt_tui.widgets.line_input import LineInput, is_alt_key

_EDITS = ("delete_", "cursor_", "cut", "clear_all", "select_all", "home", "end", "paste")


class ChoiceInput(LineInput):
    """Holds one of the field's choices, which cannot be mistyped.

    A field with `other` also takes a text. Choosing `other`, or typing what starts no choice, begins one; up and down
    return to the choices.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "step(-1)", "Previous", show=False),
        Binding("right", "step(1)", "Next", show=False),
        Binding("up", "choose(-1)", "Previous", show=False),
        Binding("down", "choose(1)", "Next", show=False),
    ]

    def __init__(self, field: Field, value: str, id: str) -> None:
        self.field = field
        super().__init__(value, id=id, placeholder=field.example)

    @property
    def is_text(self) -> bool:
        """Whether the value is typed instead of chosen."""
        return bool(self.field.other) and self.value not in self.field.choices

    @property
    def position(self) -> int:
        """The index of the value among the choices. A typed text comes after them."""
        choices = list(self.field.choices)
        return choices.index(self.value) if self.value in choices else len(choices)

    def validate_value(self, value: str) -> str:
        return value.lower() if value.lower() in self.field.choices else value

    def action_choose(self, step: int) -> None:
        """Go to the next or previous value. After the last one comes the first."""
        values = [*self.field.choices, *[""] * bool(self.field.other)]
        position = self.position if self.position < len(values) else -1 if step > 0 else 0
        self.value = values[(position + step) % len(values)]

    def action_step(self, step: int) -> None:
        if not self.is_text:
            self.action_choose(step)
        elif step > 0:
            self.action_cursor_right()
        else:
            self.action_cursor_left()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not self.is_text and action.startswith(_EDITS):
            return False
        return super().check_action(action, parameters)

    def check_consume_key(self, key: str, character: str | None) -> bool:
        if self.is_text:
            return super().check_consume_key(key, character)
        if character is None or not character.isprintable():
            return False
        # a question mark is a key of the screen, except in a text
        return character == " " or bool(self._starting_with(character)) or (bool(self.field.other) and character != "?")

    def _starting_with(self, character: str) -> list[str]:
        values = [*self.field.choices, self.field.other]
        return [value for value in values if value.startswith(character.lower())]

    async def _on_key(self, event: events.Key) -> None:
        if self.is_text or is_alt_key(event) or not event.is_printable or event.character is None:
            return
        event.prevent_default()  # otherwise Textual also passes the key to Input
        if not self.check_consume_key(event.key, event.character):
            return
        event.stop()
        if event.character == " ":
            self.action_choose(1)
        elif found := self._starting_with(event.character):
            value = found[(found.index(self.value) + 1) % len(found)] if self.value in found else found[0]
            self.value = value if value in self.field.choices else ""
        else:
            self.value = event.character
            self.cursor_position = 1

    def _on_paste(self, event: events.Paste) -> None:
        if self.is_text:
            return
        event.prevent_default()
        event.stop()
        text = event.text.strip()
        if self.field.other or text.lower() in self.field.choices:
            self.value = text
            self.cursor_position = len(text)

    def on_blur(self) -> None:
        if self.is_text and not self.value.strip():
            self.value = self.field.default

    async def _on_mouse_down(self, event: events.MouseDown) -> None:
        if not self.is_text:
            event.prevent_default()
            if self.has_focus:  # the first click only moves the focus
                self.action_choose(1)

    def render_line(self, y: int) -> Strip:
        if y or self.is_text:
            return super().render_line(y)
        text = f"◂ {self.value} ▸" if self.has_focus else self.value
        strip = Strip([Segment(text)]).adjust_cell_length(self.size.width)
        return strip.apply_style(self.rich_style)
