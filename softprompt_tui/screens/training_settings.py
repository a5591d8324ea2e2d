"""All settings of a training that are not beside the prompt."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from softprompt.config import TrainConfig
from softprompt_tui.rendering.sanitize import without_steering

MORE = {  # name: (default, what it is)
    "name": ("", "in the library; empty: from the prompt"),
    "restarts": ("1", "trained at once; the best is kept"),
    "rate": (f"{TrainConfig.rate:g}", "learning rate, in token deviations"),
    "init": ("noise", "noise, vocabulary or prompt"),
    "objective": ("cosine", "cosine, hidden, mixed, mse, contrastive"),
    "family": ("sd1", "sd1, sd2, sdxl or flux: hidden, mixed"),
    "share": ("0.3", "hidden's part of mixed"),
    "against": ("", "contrastive: other prompts, | between"),
    "patience": ("", "steps without progress; empty: any"),
    "norms": ("held", "held at a usual word's length, or free"),
    "seed": ("0", "decides noise and choice"),
    "plain": ("no", "yes: without weights, LoRA tags, wildcards"),
    "long": ("refuse", "prompt too long: refuse, chunk, cut"),
    "precision": ("float32", "float32 or bfloat16"),
    "hard": ("no", "hard readout too: no, yes, or its tokens"),
    "words": ("any", "hard: any, ascii or dictionary words"),
    "block": ("", "hard: not in it; | between"),
    "sweep": ("1-16", "F7: numbers of tokens, as 1,2,4 or 1-16"),
}


class MoreScreen(ModalScreen[dict[str, str] | None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("enter", "take", "Take", priority=True),
        Binding("ctrl+d", "usual", "The usual", priority=True),
    ]

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(classes="dialog")
        self.values = values

    def compose(self) -> ComposeResult:
        with Vertical():
            with VerticalScroll(can_focus=False):
                for name, (default, meaning) in MORE.items():
                    with Horizontal(classes="fields"):
                        label = Label(name)
                        label.styles.width = 10
                        yield label
                        value = without_steering(self.values.get(name, default))
                        field = Input(value, id=f"more-{name}", compact=True, select_on_focus=True)
                        field.styles.width = 12
                        yield field
                        yield Label(meaning, classes="meaning")
            yield Static("", id="meaning", markup=False)
            yield Static("tab goes on, enter takes them, ctrl+d the usual, escape leaves", classes="keys", markup=False)

    def on_descendant_focus(self) -> None:
        """On a narrow terminal what a field means stands under them all, for the one that is being typed in."""
        name = (self.focused.id or "" if self.focused else "").removeprefix("more-")
        self.query_one("#meaning", Static).update(MORE[name][1] if name in MORE else "")

    def action_usual(self) -> None:
        for name, (default, _) in MORE.items():
            self.query_one(f"#more-{name}", Input).value = default

    def action_take(self) -> None:
        typed = {name: self.query_one(f"#more-{name}", Input).value.strip() for name in MORE}
        self.dismiss(beside_defaults(typed))


def beside_defaults(values: dict[str, str]) -> dict[str, str]:
    """Those of the values that are not the default."""
    return {name: value for name, value in values.items() if value != MORE[name][0]}
