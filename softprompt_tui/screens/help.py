"""Help: what this is, and the keys of the pane that one is in."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

ABOUT = {
    "prompt": "Type what the soft prompt should mean. ctrl+t trains it; up in the first line brings back earlier prompts. What is struck through does not fit "
    "into the model. The fields below: how many soft tokens, how many steps, where to stop, whether to train inside sentences too, device and model.",
    "loss": "The loss of the training, or of what the library's cursor is on; lower is better, and the axis is a logarithm. Similarity 1 would mean: the text "
    "encoder cannot tell the soft prompt from your prompt. F3 opens the curve, z in it looks closer.",
    "readout": "The words nearest to each soft token. They look like gibberish, and typed as text they carry only part of the meaning: that is the similarity "
    "'as text'. The soft tokens themselves are the vectors. A word that has just changed is shown reversed.",
    "library": "Everything that was trained. / searches, o changes the order, enter opens (its tokens are then [v1], [v2], …), r renames, t tags, N notes, d deletes "
    "and u undoes that, n takes its prompt and the fields below it for a variation, y copies the name as a word, space marks, c compares two that are marked. e writes a file for "
    "another program (ComfyUI, AUTOMATIC1111, diffusers, …), f takes in theirs.",
    "compose": "Use soft prompts as words: [name] mountain view, or a mix of two: [name*.6 + other*.4]. Fidelity is the similarity to the same sentence with "
    "the prompts written out, floor what leaving the added words away would come to. A second text can be compared with it. "
    "ctrl+s trains a soft prompt that means all of it.",
    "runs": "Trainings one after another; they go on when you leave. s stops and saves the best so far, p pauses and resumes, K and J change the order, r tries "
    "a failed one again, d drops one.",
}
EVERYWHERE = (
    "F1 ?    help       F2   prompt     F3  plot\n"
    "F4      library    F5   compose    F6  runs\n"
    "F8      all settings of a training\n"
    "ctrl+t  train      tab  next field or pane\n"
    "ctrl+p  every command by its name, and the themes\n"
    "ctrl+r  start the worker again, if it is gone\n"
    "ctrl+q  quit; what trains goes on"
)


class HelpScreen(ModalScreen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,f1,question_mark,q,enter", "dismiss", "Back")]

    def __init__(self, pane: str) -> None:
        super().__init__(classes="dialog")
        self.pane = pane

    def compose(self) -> ComposeResult:
        with Vertical(), VerticalScroll():
            yield Static(
                f"{self.pane.capitalize()}\n\n{ABOUT[self.pane]}\n\nEverywhere\n\n{EVERYWHERE}", id="help-text", markup=False
            )
            yield Static("escape goes back", classes="keys", markup=False)
