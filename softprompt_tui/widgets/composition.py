"""The compose pane: soft prompts used as words, and how well they keep their meaning there."""

from __future__ import annotations

from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Label, Static

from softprompt.library import Library
from softprompt_tui.messages import CompositionChanged, CompositionTrainRequested
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.services.worker import MeasuredComposition, ReferenceText
from softprompt_tui.widgets.line_input import LineInput
from softprompt_tui.widgets.name_completion import NameCompletion

SHORT_HINT = "A soft prompt is a word: type [ and its name."
HINT = (
    f"{SHORT_HINT}\n"
    "[v1] is a token of the open entry, [name:1-3] are the first three of another one, "
    "[name*.6 + other*.4] is a mix, \\[ is a plain bracket."
)


class ComposePane(Vertical):
    """The composition, a text to compare it with, and their similarities."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "keep", "Train this", tooltip="Train one soft prompt for the whole composition")
    ]

    def __init__(self, library: Library, composition: str) -> None:
        super().__init__(id="compose", classes="pane below")
        self._library, self._initial = library, composition
        self._shows_hint = True

    def compose(self) -> ComposeResult:
        with Horizontal(classes="fields"):
            yield Label("text")
            yield NameCompletion(self._library, self._initial)
        with Horizontal(classes="fields"):
            yield Label("against")
            yield LineInput(id="against", placeholder="a text to compare with")
        yield Static(HINT, id="composed", markup=False)

    def on_mount(self) -> None:
        for field in self.query(Input):
            field.select_on_focus = False  # so that typing appends to the text

    def on_resize(self) -> None:
        if self._shows_hint:
            self.call_after_refresh(self._show_hint)

    def _show_hint(self) -> None:
        """Show the hint, or its first sentence where the pane is too low for all of it."""
        target = self.query_one("#composed", Static)
        room = self.content_size.height - len(self.query(".fields")) - target.styles.padding.top
        lines = Text(HINT).wrap(self.app.console, max(10, self.content_size.width))
        self._shows_hint = True
        target.update(HINT if len(lines) <= room else SHORT_HINT)

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
        """Show a measured composition, an error, or the hint if there is neither."""
        target = self.query_one("#composed", Static)
        is_half_typed = self.query_one(NameCompletion).is_unfinished  # which is not an error
        self._shows_hint = is_half_typed if error else answer is None
        if self._shows_hint:
            self._show_hint()
            return
        if error:
            target.update(Text(sanitize(error), "italic"))
            return
        assert answer is not None
        text = Text()
        written = answer.reference
        if written is None:
            text.append("tokens ", "dim").append(f"{answer.tokens} of {answer.max_tokens}")
            text.append("\nno soft prompt yet: type [ and its name", "dim")
        else:
            _append_fidelity(text, written)
            text.append("\ntokens ", "dim").append(f"{answer.tokens} of {answer.max_tokens}")
            if written.saved is not None:
                text.append(f", {_tokens_saved(written.saved)}")
        if answer.other_similarity is not None:
            text.append("\nto the other text ", "dim").append(format_number(answer.other_similarity), "bold")
        if written is not None:
            text.append(_MIXED.get(written.mixed, ""), "dim")
            text.append(f"\n{sanitize(written.text)}", "dim italic")
        target.update(text)


_MIXED = {"near": "\nthe mix is approximate; ctrl+s trains it"}


def _append_fidelity(text: Text, written: ReferenceText) -> None:
    """Append the fidelity and its floor, or the reason why the fidelity is unknown."""
    text.append("fidelity ", "dim")
    if written.tokens is None:
        text.append("unknown: one of the prompts is unknown")
    elif written.similarity is None:
        text.append("unknown: the written-out sentence is too long for the model")
    else:
        text.append(format_number(written.similarity), "bold")
        if written.floor is not None:
            below = written.similarity < written.floor
            text.append("  below its floor " if below else "  floor ", "red" if below else "dim").append(
                format_number(written.floor)
            )


def _tokens_saved(tokens: int) -> str:
    return f"{tokens} saved" if tokens >= 0 else f"{-tokens} more than written out"
