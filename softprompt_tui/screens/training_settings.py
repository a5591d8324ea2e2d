"""The dialog for all training settings that the prompt pane does not show."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from softprompt.config import TrainConfig
from softprompt_tui.rendering.sanitize import strip_control_chars

SETTINGS = {  # name: (default, meaning)
    "name": ("", "name in the library; empty: from the prompt"),
    "restarts": ("1", "trained together; the best one is saved"),
    "rate": (f"{TrainConfig.rate:g}", "learning rate, in std of token embeddings"),
    "init": ("noise", "noise, vocabulary or prompt"),
    "objective": ("cosine", "cosine, hidden, mixed, mse, contrastive"),
    "family": ("sd1", "for hidden, mixed: sd1, sd2, sdxl or flux"),
    "share": ("0.3", "for mixed: weight of the hidden objective"),
    "against": ("", "for contrastive: other prompts, split by |"),
    "patience": ("", "stop after n steps without progress"),
    "norms": ("held", "held: at a typical word's norm; or free"),
    "seed": ("0", "random seed"),
    "plain": ("no", "yes: drop weights, LoRA tags, wildcards"),
    "long": ("refuse", "overlong prompts: refuse, chunk or cut"),
    "precision": ("float32", "float32 or bfloat16"),
    "hard": ("no", "hard readout too: no, yes or token count"),
    "words": ("any", "for hard: any, ascii or dictionary words"),
    "block": ("", "for hard: words to avoid, split by |"),
    "sweep": ("1-16", "F7: token counts, such as 1,2,4 or 1-16"),
}


class SettingsScreen(ModalScreen[dict[str, str] | None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("enter", "take", "Take", priority=True),
        Binding("ctrl+d", "usual", "Defaults", priority=True),
    ]

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(classes="dialog")
        self.values = values

    def compose(self) -> ComposeResult:
        with Vertical():
            with VerticalScroll(can_focus=False):
                for name, (default, meaning) in SETTINGS.items():
                    with Horizontal(classes="fields"):
                        label = Label(name)
                        label.styles.width = 10
                        yield label
                        value = strip_control_chars(self.values.get(name, default))
                        field = Input(value, id=f"more-{name}", compact=True, select_on_focus=True)
                        field.styles.width = 12
                        yield field
                        yield Label(meaning, classes="meaning")
            yield Static("", id="meaning", markup=False)
            yield Static(
                "tab next, enter applies, ctrl+d restores defaults, escape cancels", classes="keys", markup=False
            )

    def on_descendant_focus(self) -> None:
        """Describe the focused field below the fields. Only narrow terminals show this line."""
        name = (self.focused.id or "" if self.focused else "").removeprefix("more-")
        self.query_one("#meaning", Static).update(SETTINGS[name][1] if name in SETTINGS else "")

    def action_usual(self) -> None:
        for name, (default, _) in SETTINGS.items():
            self.query_one(f"#more-{name}", Input).value = default

    def action_take(self) -> None:
        typed = {name: self.query_one(f"#more-{name}", Input).value.strip() for name in SETTINGS}
        self.dismiss(changed_settings(typed))


def changed_settings(values: dict[str, str]) -> dict[str, str]:
    """Return the values that differ from the defaults."""
    return {name: value for name, value in values.items() if value != SETTINGS[name][0]}
