"""Help: what the pane that one is in is for, and its keys."""

from __future__ import annotations

from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Static

from softprompt_tui.rendering.grid import labelled

Keys = tuple[tuple[str, str], ...]

ABOUT: dict[str, tuple[str, Keys]] = {
    "prompt": (
        "What the soft prompt should mean. The model does not read what is struck through, and reads as words what is underlined: "
        "image programs' syntax. Below: soft tokens, steps, where to stop, sentences, device, model.",
        (
            ("ctrl+t", "trains it"),
            ("up down", "in the first and last line: earlier prompts and back"),
            ("tab", "to the fields"),
            ("F7", "sweeps it: 1 to 16 soft tokens at once"),
            ("F8", "all other settings, counted below"),
        ),
    ),
    "loss": (
        "The loss of the training, or of what the library's cursor is on; lower is better, and the axis is a logarithm. While a hard readout is looked for it is "
        "1 - similarity of the best text so far. Similarity 1 would mean: the text "
        "encoder cannot tell the soft prompt from your prompt.",
        (("F3 enter", "the curve in full"), ("z", "in it: the last part only"), ("s", "in it: 1 - similarity")),
    ),
    "readout": (
        "How much of the meaning three things carry: the soft tokens, which are vectors; their nearest words typed as text, which look like gibberish and carry only "
        "part of it; and a hard readout: real words, looked for so that typed anywhere they come as near as words can. A word that has just changed is shown reversed.",
        (
            ("x", "looks for a hard readout, or for another; F8 says of how many tokens, and which words"),
            ("y", "copies it"),
            ("F9", "comes here"),
        ),
    ),
    "detail": ("All that is known of what loss and readout show.", ()),
    "library": (
        "Everything that was trained, or came from files. What the cursor is on is shown; opening it makes its tokens [v1], [v2], … of compositions.",
        (
            ("j k g G", "up and down, first and last; page up, page down"),
            ("/", "searches as you type; escape ends it"),
            ("o", "another order"),
            ("enter", "opens it"),
            ("i", "everything about it"),
            ("r", "another name"),
            ("t", "its tags, or those of all that are marked"),
            ("N", "a note"),
            ("d", "deletes it, or all that are marked"),
            ("u", "undoes that"),
            ("n", "its prompt and settings into the editor, for a variation"),
            ("y", "copies it as a word, and puts it into the composition"),
            ("space", "marks it; escape unmarks all"),
            ("c", "compares two that are marked"),
            ("x", "looks for a hard readout: real words that carry its meaning"),
            ("Y", "copies the hard readout"),
            ("H", "says which hard prompt one stands for that came from a file"),
            ("e", "writes a file for ComfyUI, AUTOMATIC1111, diffusers, …"),
            ("f", "takes in files of other programs"),
        ),
    ),
    "compose": (
        "Soft prompts as words. Fidelity is the similarity to the same sentence with the prompts written out; the floor is what leaving the added words away "
        "would come to. A second text can be compared with it.",
        (
            ("[", "names to choose from: up, down, then tab or enter"),
            ("[name]", "a soft prompt; [name:2] its second token, [name:1-3] its first three"),
            ("[v1]", "a token of the open one"),
            ("[a*.6 + b*.4]", "a mix, by shares"),
            ("\\[", "a bracket"),
            ("ctrl+s", "trains a soft prompt that means all of it"),
        ),
    ),
    "runs": (
        "Trainings (train), sweeps and searches for hard readouts (hard), one after another; they go on when you leave. A queued one has its place in the queue, "
        "and below the table stands behind what it waits.",
        (
            ("enter", "shows its curve and readout; of a sweep, the table and the plot to choose from"),
            ("s", "stops it, and saves the best so far"),
            ("p", "pauses it, and resumes it"),
            ("K J", "earlier, later"),
            ("r", "tries a failed one again"),
            ("d", "drops it"),
            ("x", "looks for a hard readout of what it made"),
        ),
    ),
}
ABOUT["sweep"] = (
    "The prompt with 1 to 16 soft tokens, or the numbers that F8 names, trained in one batch. The plot shows how far each is from 1, alone and inside sentences; lower is better, and "
    "the axis is a logarithm. At the knee more tokens begin to give little. Nothing is saved that is not chosen, and leaving loses nothing: the "
    "sweep stays in runs (F6).",
    (
        ("space", "keeps this one, or drops it"),
        ("a", "keeps all, or none"),
        ("enter", "saves what is kept"),
        ("s", "stops it with the best so far"),
        ("escape F7", "goes back; enter in runs comes here again"),
    ),
)
EVERYWHERE: Keys = (
    ("F1 ?", "help"),
    ("F2", "prompt"),
    ("F3", "the curve in full"),
    ("F4", "library"),
    ("F5", "compose"),
    ("F6", "runs"),
    ("F7", "sweep the prompt"),
    ("F8", "all settings of a training"),
    ("F9", "readout"),
    ("ctrl+t", "train"),
    ("tab", "next field or pane"),
    ("ctrl+p", "every command by its name, and the themes"),
    ("ctrl+r", "start the worker again, if it is gone"),
    ("escape", "puts notices away"),
    ("ctrl+q", "quit; asks first where something trains, which then goes on or stops"),
)


def pane_of(focused: Widget | None) -> str:
    """The pane that one is in, by the name that ABOUT gives it."""
    around = focused.ancestors_with_self if focused else ()
    pane = next((node.id for node in around if node.id and "pane" in getattr(node, "classes", ())), "prompt-pane")
    return pane.removesuffix("-pane")


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,question_mark,q,enter", "dismiss", "Back")]

    def __init__(self, pane: str) -> None:
        super().__init__(classes="dialog")
        self.pane = pane

    def compose(self) -> ComposeResult:
        about, keys = ABOUT[self.pane]
        text = Group(
            Text(self.pane.capitalize(), "bold"),
            Text(f"\n{about}\n"),
            labelled(keys, "bold"),
            Text("\nEverywhere\n", "bold"),
            labelled(EVERYWHERE, "bold"),
        )
        with Vertical(), VerticalScroll():
            yield Static(text, id="help-text", markup=False)
            yield Static("escape goes back", classes="keys", markup=False)
