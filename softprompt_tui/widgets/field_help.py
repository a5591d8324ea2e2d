"""The line that explains the focused field."""

from __future__ import annotations

from rich.text import Text
from textual.widgets import Static

from softprompt_tui.state.fields import Field


class FieldHelp(Static):
    """Explains a field in one line. Of a choice, the line shows all values and marks the chosen one."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)

    def show(self, field: Field | None, value: str = "") -> None:
        self.update(explain_field(field, value) if field else "")


def explain_field(field: Field, value: str) -> Text:
    text = Text.assemble((f"{field.label}: ", "bold"))
    value = value.strip().lower() if field.choices else value
    chosen = value if value in field.choices else field.other
    for choice in filter(None, (*field.choices, field.other if field.choices else "")):
        text.append(f"▸{choice} " if choice == chosen else f" {choice} ", "bold" if choice == chosen else "dim")
    return text.append(" " * bool(field.choices)).append(field.explain(value))
