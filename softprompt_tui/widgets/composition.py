"""Composing: soft prompts as words of a prompt, and how near that is to the sentence written out."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input, Static

from softprompt.library import Library
from softprompt_tui.messages import CompositionChanged, CompositionTrainRequested
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.services.worker import MeasuredComposition, WrittenOut
from softprompt_tui.widgets.name_completion import WithCandidates

HINT = "A soft prompt is a word: type [ and a name.\n[v1] is a token of the open one, [name:1-3] are three of another's, [name*.6 + other*.4] is a mix; \\[ is a bracket."


class ComposePane(Vertical):
    """A composition, any text to hold it against, and their similarities."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "keep", "Save", tooltip="Train a soft prompt that means all of it")
    ]

    def __init__(self, library: Library, composition: str) -> None:
        super().__init__(id="compose", classes="pane below")
        self._library, self._first = library, composition

    def compose(self) -> ComposeResult:
        yield WithCandidates(self._library, self._first)
        yield Input(id="against", compact=True, placeholder="any text to compare it with")
        yield Static(HINT, id="composed", markup=False)

    def on_mount(self) -> None:
        for field in self.query(Input):
            field.select_on_focus = False  # what is typed after it was come to is added

    @property
    def composition(self) -> str:
        return self.query_one("#composition", Input).value

    @property
    def against(self) -> str:
        return self.query_one("#against", Input).value

    def action_keep(self) -> None:
        if self.composition.strip():
            self.post_message(CompositionTrainRequested())

    def insert(self, text: str) -> None:
        field = self.query_one("#composition", Input)
        field.insert_text_at_cursor(text)

    @on(Input.Changed)
    def _changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(CompositionChanged())

    def show(self, answer: MeasuredComposition | None, error: str = "") -> None:
        """What the composition comes to; None where there is none."""
        target = self.query_one("#composed", Static)
        if error and self.query_one(WithCandidates).is_unfinished:  # who is typing a name has made no mistake
            target.update(HINT)
            return
        if error:
            target.update(Text(sanitize(error), "italic"))
            return
        if answer is None:
            target.update(HINT)
            return
        text = Text()
        written = answer.written_out
        if written is None:
            text.append("tokens ", "dim").append(f"{answer.tokens} of {answer.room}")
            text.append("\nno soft prompt in it yet: type [ and a name", "dim")
        else:
            _fidelity(text, written)
            text.append("\ntokens ", "dim").append(f"{answer.tokens} of {answer.room}")
            if written.saved is not None:
                text.append(f", {_saved(written.saved)}")
        if answer.to_other is not None:
            text.append("\nto the other text ", "dim").append(f"{answer.to_other:.4f}", "bold")
        if written is not None:
            text.append(_MIXED.get(written.mixed, ""), "dim")
            text.append(f"\n{sanitize(written.text)}", "dim italic")
        target.update(text)


_MIXED = {"near": "\nthe mix is near; ctrl+s trains it"}


def _fidelity(text: Text, written: WrittenOut) -> None:
    """Fidelity beside its floor, or why there is none."""
    text.append("fidelity ", "dim")
    if written.tokens is None:
        text.append("unknown, as a hard prompt is")
    elif written.similarity is None:
        text.append("unknown: written out, it is too long for the model, which is what soft prompts are for")
    else:
        text.append(f"{written.similarity:.4f}", "bold")
        if written.floor is not None:
            below = written.similarity < written.floor
            text.append("  below its floor " if below else "  floor ", "red" if below else "dim").append(
                f"{written.floor:.4f}"
            )


def _saved(tokens: int) -> str:
    return f"{tokens} saved" if tokens >= 0 else f"{-tokens} more than written out"
