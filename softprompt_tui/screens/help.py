"""The help screen: the purpose and keys of the focused pane."""

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

from softprompt_tui.rendering.grid import label_grid
from softprompt_tui.state.fields import explained_settings
from softprompt_tui.widgets.key_bar import DialogKeys

Keys = tuple[tuple[str, str], ...]

PANE_HELP: dict[str, tuple[str, Keys]] = {
    "prompt": (
        "Type what the soft prompt should mean. The model ignores struck-through text. It treats underlined "
        "text, the syntax of image programs, as plain words. Below: soft tokens, steps, similarity to stop at, "
        "contexts, device, model.",
        (
            ("ctrl+t", "train the prompt"),
            ("F7", "sweep: 1 to 16 soft tokens at once"),
            ("F8", "all other settings"),
            ("up down", "in the first or last line: prompt history"),
            ("tab enter", "go to the next field; left, right, space or a first letter choose a value"),
            ("ctrl+l", "select all"),
            ("ctrl+g", "clear all; ctrl+z brings it back"),
            ("ctrl+z ctrl+y", "undo, redo"),
            ("ctrl+left right", "a word back or forward; alt+b and alt+f too"),
            ("ctrl+w alt+d", "delete the word before or after the cursor"),
            ("ctrl+a ctrl+e", "start and end of the line"),
            ("ctrl+u ctrl+k", "delete to the start or end of the line"),
        ),
    ),
    "loss": (
        "The loss of the current run, or of the library entry under the cursor. Lower is better; the axis is "
        "logarithmic. During a search for a hard readout, the curve is 1 - similarity of the best text so far. At "
        "similarity 1, the text encoder cannot tell the soft prompt from your prompt.",
        (
            ("F3 enter", "open the full curve"),
            ("r m v e l", "of a failed run: try again, model, device, edit, worker's log"),
            ("z", "in the full curve: zoom in on the last steps"),
            ("s", "in the full curve: switch between loss and 1 - similarity"),
        ),
    ),
    "readout": (
        "Compares how much of your prompt's meaning survives in three forms. soft: the soft tokens, which are vectors. "
        "as text: the words nearest to them. These look like gibberish and keep only part of the meaning. "
        "hard: the hard readout, real words found by search that you can type in any program. Words that have just "
        "changed are highlighted.",
        (
            ("x", "search for a hard readout, or for another one; F8 sets its length and words"),
            ("y", "copy the hard readout"),
            ("F9", "go to this pane"),
        ),
    ),
    "detail": ("Everything known about the run or entry that the loss and readout panes show.", ()),
    "library": (
        "Everything you have trained or imported. Loss and readout show the entry under the cursor. Opening an entry "
        "makes its tokens available in compositions as [v1], [v2], …",
        (
            ("j k g G", "down, up, first, last; page up and page down work too"),
            ("/", "search as you type; escape ends the search"),
            ("o", "change the sort order"),
            ("enter", "open the entry"),
            ("i", "show all details"),
            ("r", "rename it"),
            ("t", "edit its tags, or the tags of all marked entries"),
            ("N", "edit its note"),
            ("d", "delete it, or all marked entries"),
            ("u", "undo the last deletion"),
            ("T", "show the trash, or the library again; there, R or enter restores an entry, or all marked ones"),
            ("#", "show only entries with a tag; escape shows all again"),
            ("n", "load its prompt and settings into the editor, to train a variation"),
            ("y", "copy it as a word, and insert the word into the composition"),
            ("space", "mark it; escape removes all marks"),
            ("c", "compare two marked entries"),
            ("x", "search for a hard readout: real words with the same meaning"),
            ("Y", "copy the hard readout"),
            ("H", "set the hard prompt of an imported entry"),
            ("e", "export it for ComfyUI, AUTOMATIC1111, diffusers, …"),
            ("f", "import files from other programs"),
        ),
    ),
    "compose": (
        "Use soft prompts as words. Fidelity is the similarity to the same sentence with the prompts written out. The "
        "floor is the similarity you would get without the added words: fidelity should be above it. You can also "
        "compare the composition with a second text.",
        (
            ("[", "choose a name: up, down, then tab or enter"),
            ("[name]", "a soft prompt; [name:2] is its second token, [name:1-3] its first three"),
            ("[v1]", "the first token of the open entry"),
            ("[a*.6 + b*.4]", "a mix of two soft prompts by weight"),
            ("\\[", "a plain bracket"),
            ("ctrl+s", "train one soft prompt for the whole composition"),
        ),
    ),
    "runs": (
        "Training runs (train), token sweeps (sweep) and searches for hard readouts (hard). Loss and readout show the "
        "run under the cursor. The worker runs them in order and can continue after you quit. A queued run shows its "
        "place in the queue; the line below the table says what it is waiting for.",
        (
            (
                "enter",
                "show it in loss and readout; for a sweep, open the table to choose from",
            ),
            ("s", "stop it and save the best so far"),
            ("p", "pause or resume it"),
            ("K J", "move it up or down in the queue"),
            ("r", "retry a failed run"),
            ("d", "drop it"),
            ("u", "bring the dropped run back, within a day"),
            ("x", "search for a hard readout of its result"),
        ),
    ),
}
PANE_HELP["sweep"] = (
    "Trains the prompt with 1 to 16 soft tokens in one batch; F8 sets other numbers. The plot shows how far similarity "
    "is from 1, alone and inside sentences. Lower is better; the axis is logarithmic. Beyond the knee, more tokens "
    "add little. Only the rows that you save go to the library. You can leave at any time: the sweep stays in runs "
    "(F6).",
    (
        ("space", "mark the row, or remove its mark"),
        ("a", "mark all rows, or none"),
        ("enter", "save the marked rows"),
        ("s", "stop the sweep and keep the best so far"),
        ("escape F7", "go back; enter in runs opens the sweep again"),
    ),
)
PANE_HELP["models"] = (
    "Every model that can be used: those on disk first, then unfinished downloads, the text encoders of image "
    "programs, and language models. The size is known once a model is on disk or is being pulled. The files are in the "
    "Hugging Face cache, a folder that all programs using the hub share; HF_HOME moves it. smollm2-q4 and converted "
    ".gguf files are in this program's own cache. A pull goes on while this screen is closed.",
    (
        ("enter", "use the model for the prompt; training pulls it first if it is not on disk"),
        ("p", "pull it from the hub, or resume an unfinished pull"),
        ("x", "cancel the pull and keep what has arrived"),
        ("d", "delete it from the disk, after asking"),
        (
            "/",
            "search as you type: vitl14, sdxl, language; the full name of a language model on the hub, such as "
            "hf:Qwen/Qwen3-0.6B, gives a row that you can pull",
        ),
        ("j k g G", "down, up, first, last; page up and page down work too"),
        ("escape ^o", "go back"),
    ),
)
PANE_HELP["settings"] = (
    "All training settings that the prompt pane does not show. They stay until you change them again; the lower edge "
    "of the prompt pane says how many differ from their defaults.",
    (*explained_settings(), ("ctrl+d", "set all to their defaults")),
)
PANE_HELP["export"] = (
    "Writes a copy for another program; the soft prompt stays in the library. A program can only use vectors of the "
    "width that its text encoder has, so train with that model, or port the prompt: i in the library.",
    (
        ("for", "the program that is to read the file"),
        ("write to", "a folder, or a file name with the program's suffix"),
        ("pair", "for SDXL, which reads two encoders: the soft prompt for the other one"),
        ("word", "for diffusers: the word that stands for the soft prompt"),
        ("ctrl+f", "choose the folder"),
        ("enter", "write the file, and show what to type in the program"),
    ),
)
PANE_HELP["plot"] = (
    PANE_HELP["loss"][0],
    (("z", "zoom in on the last steps"), ("s", "switch between loss and 1 - similarity"), ("escape F3", "go back")),
)
PANE_HELP["trash"] = (
    "What you have deleted from the library. It stays here until you purge it with `softprompt-tui purge NAME`.",
    (
        ("R enter", "restore the entry, or all marked ones"),
        ("space", "mark it; escape removes all marks"),
        ("u", "undo the last deletion"),
        ("/", "search as you type; escape ends the search"),
        ("o", "change the sort order"),
        ("j k g G", "down, up, first, last; page up and page down work too"),
        ("T escape", "show the library again"),
    ),
)
PANE_GUIDES = {
    "settings": "choosing-tokens",
    "export": "image-programs",
    "plot": "first-steps",
    "prompt": "first-steps",
    "loss": "first-steps",
    "readout": "first-steps",
    "library": "library-files",
    "trash": "library-files",
    "compose": "composing",
    "runs": "worker",
    "sweep": "choosing-tokens",
    "models": "real-models",
}
GLOBAL_KEYS: Keys = (
    ("F1", "help"),
    ("?", "explain the words on the screen, where no text field has the focus"),
    ("F2", "prompt"),
    ("F3", "full loss curve"),
    ("F4", "library"),
    ("F5", "compose"),
    ("F6", "runs"),
    ("F7", "sweep the prompt; asks first if it takes more than a minute"),
    ("F8", "all training settings"),
    ("F9", "readout"),
    ("ctrl+o", "models: choose, pull and delete"),
    ("ctrl+t", "train; asks first if the same training exists"),
    ("ctrl+x", "stop the run in view and keep its best so far; cuts selected text"),
    ("tab", "next field or pane"),
    ("ctrl+p", "all commands by name, the guides, the themes, and the bell for long runs"),
    ("ctrl+r", "restart the worker if it has stopped"),
    ("escape", "close notices"),
    ("ctrl+q", "quit; asks first if a run is in progress"),
)


def focused_pane(focused: Widget | None) -> str:
    """Return the PANE_HELP key of the pane that has the focus."""
    ancestors = focused.ancestors_with_self if focused else ()
    pane = next((node.id for node in ancestors if node.id and "pane" in getattr(node, "classes", ())), "prompt-pane")
    return pane.removesuffix("-pane")


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f1,q,enter", "dismiss", "Back", key_display="esc"),
        Binding("d", "guides", "Guides"),
    ]

    def __init__(self, pane: str) -> None:
        super().__init__(classes="dialog")
        self.pane = pane

    def compose(self) -> ComposeResult:
        about, keys = PANE_HELP[self.pane]
        text = Group(
            Text(f"{about}\n"),
            label_grid(keys, "bold"),
            Text("\nEverywhere\n", "bold"),
            label_grid(GLOBAL_KEYS, "bold"),
        )
        with Vertical() as dialog:
            dialog.border_title = f"Help: {self.pane.capitalize()}"
            with VerticalScroll():
                yield Static(text, id="help-text", markup=False)
            yield DialogKeys()

    def action_guides(self) -> None:
        """Open the guide about the pane in place of this screen."""
        from softprompt_tui.screens.docs import DocsScreen

        self.app.switch_screen(DocsScreen(PANE_GUIDES.get(self.pane, "interface")))
