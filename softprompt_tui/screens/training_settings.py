"""The dialog for all training settings that the prompt pane does not show."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label

from softprompt_tui.rendering.sanitize import strip_control_chars
from softprompt_tui.state.fields import MORE_GROUPS, Field, changed_settings, settings_of
from softprompt_tui.widgets.choice_input import ChoiceInput
from softprompt_tui.widgets.field_help import FieldHelp
from softprompt_tui.widgets.key_bar import DialogKeys
from softprompt_tui.widgets.line_input import LineInput

if TYPE_CHECKING:
    from softprompt.config import ModelKind


class SettingsScreen(ModalScreen[dict[str, str] | None]):
    """Shows the settings that a kind of model has. Returns all that differ from their defaults, of both kinds."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "take", "Apply", key_display="enter", priority=True),
        Binding("tab", "app.field(1)", "Next", priority=True),
        Binding("ctrl+d", "usual", "Defaults", priority=True),
        Binding("f1", "app.explain('settings')", "Help", key_display="F1"),
        Binding("escape", "dismiss(None)", "Cancel", key_display="esc"),
    ]

    def __init__(self, values: dict[str, str], kind: ModelKind) -> None:
        super().__init__(classes="dialog")
        self.values, self.kind, self.fields = values, kind, settings_of(kind)

    def compose(self) -> ComposeResult:
        with Vertical() as dialog:
            dialog.border_title = f"All training settings{' of a language model' * (self.kind == 'causal')}"
            with VerticalScroll(can_focus=False):
                for group, names in MORE_GROUPS.items():
                    fields = {name: self.fields[name] for name in names if name in self.fields}
                    if fields:
                        yield Label(group, classes="group")
                    for name, field in fields.items():
                        value = strip_control_chars(self.values.get(name, field.default))
                        with Horizontal(classes="fields"):
                            yield Label(field.label)
                            yield _input(field, value, f"more-{name}")
                            yield Label(field.meaning, classes="meaning")
            with Vertical(classes="footer"):
                yield FieldHelp(id="meaning")
                yield DialogKeys()

    def on_descendant_focus(self) -> None:
        self._explain()

    def on_input_changed(self) -> None:
        self._explain()

    def _explain(self) -> None:
        """Explain the focused field below the fields."""
        if isinstance(line := self.focused, Input):
            name = (line.id or "").removeprefix("more-")
            self.query_one(FieldHelp).show(self.fields.get(name), line.value)

    def action_usual(self) -> None:
        for name, field in self.fields.items():
            self.query_one(f"#more-{name}", Input).value = field.default

    def action_take(self) -> None:
        typed = {name: self.query_one(f"#more-{name}", Input).value.strip() for name in self.fields}
        hidden = {name: value for name, value in self.values.items() if name not in self.fields}
        self.dismiss(hidden | changed_settings(typed, self.kind))


def _input(field: Field, value: str, id: str) -> Input:
    if field.choices:
        return ChoiceInput(field, value, id)
    return LineInput(value, id=id)
