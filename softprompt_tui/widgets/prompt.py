"""The prompt: an editor with its count of tokens, and the settings that matter beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.document._document import Document
from textual.geometry import Offset
from textual.message import Message
from textual.suggester import SuggestFromList
from textual.widgets import Input, Label, TextArea

from softprompt_tui.messages import PromptChanged, TrainRequested
from softprompt_tui.rendering.sanitize import without_steering
from softprompt_tui.widgets.pane import titled

if TYPE_CHECKING:
    from softprompt.prompts.syntax import SyntaxSpan
    from softprompt_tui.services.token_count import Count

FIELDS = {  # name: (label, what it is)
    "tokens": ("tokens", "soft tokens, or auto for the fewest that reach 'stop at'"),
    "steps": ("steps", "the most steps of the training"),
    "stop_at": ("stop at", "similarity at which to stop, such as .99; empty for all steps"),
    "contexts": (
        "contexts",
        "yes: train inside sentences too, so that it can be used as a word; no: alone; or your own, such as a photo of {} | {} at night",
    ),
    "device": ("device", "auto, cpu, cuda, cuda:1 or mps"),
    "model": ("model", "mini, local-dir:FOLDER, or a MODEL/TAG of open_clip"),
}

PROMPT = "pane('prompt')"


class Editor(TextArea):
    """The editor: up in the first line and down in the last go through the prompts before; what would be cut is struck through."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("ctrl+t", "train", "Train")]

    class Recalled(Message):
        """An earlier (-1) or later (1) prompt is wanted."""

        def __init__(self, way: int) -> None:
            super().__init__()
            self.way = way

    cut: int | None = None
    syntax: Sequence[SyntaxSpan] = ()

    def on_mount(self) -> None:
        # the application's F7 holds everywhere; a text area's own would only give it the first place in the footer, before training
        self._bindings.key_to_bindings.pop("f7", None)

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        if self.cut is None and not self.syntax:
            return line
        before = cast(Document, self.document).get_index_from_location((line_index, 0))
        for span in self.syntax:
            style = "strike dim" if span.kind == "infotext" else "underline"
            line.stylize(style, max(0, span.start - before), max(0, span.end - before))
        if self.cut is not None:
            line.stylize("strike dim", max(0, self.cut - before), max(0, len(line)))
        return line

    def mark(self, cut: int | None, syntax: Sequence[SyntaxSpan]) -> None:
        """Strike through what the model does not read, from `cut` on, and underline what image programs read as syntax."""
        if (cut, syntax) != (self.cut, self.syntax):
            self.cut, self.syntax = cut, syntax
            self._line_cache.clear()
            self.refresh()

    def scroll_cursor_visible(self, center: bool = False, animate: bool = False) -> Offset:
        if self.has_focus:
            return super().scroll_cursor_visible(center, animate)
        self.scroll_home(animate=False)  # of a prompt that one does not write in, the beginning tells what it is
        return Offset()

    def on_blur(self) -> None:
        self.scroll_cursor_visible()

    def on_focus(self) -> None:
        self.call_after_refresh(self.scroll_cursor_visible)

    async def action_train(self) -> None:
        """At once: a message would be read after the next key, which may be ctrl+q."""
        await self.screen.run_action("train")

    async def _on_key(self, event: events.Key) -> None:
        row = self.wrapped_document.location_to_offset(self.cursor_location).y
        if event.key == "up" and row == 0:
            self.post_message(self.Recalled(-1))
        elif event.key == "down" and row == self.wrapped_document.height - 1:
            self.post_message(self.Recalled(1))
        else:
            return
        event.prevent_default()  # else Textual gives the key to TextArea as well
        event.stop()


class PromptPane(Vertical):
    """Editor and settings; `prompt` and `fields` are what is typed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "f7",
            "screen.sweep",
            "Sweep",
            key_display="F7",
            priority=True,
            tooltip="1 to 16 soft tokens at once, to choose from",
        ),
        Binding("f8", "screen.more", "Settings", key_display="F8", priority=True),
    ]

    def __init__(self, prompt: str, fields: dict[str, str], history: list[str]) -> None:
        super().__init__(id="prompt-pane", classes="pane")
        self.border_title = f"{titled('F2', 'Prompt', PROMPT)}  {titled('F7', 'sweep', 'sweep', chosen=False)}"
        self._first = prompt, fields
        self.history = history
        self._at = len(history)
        self._edited: dict[int, str] = {}  # what was typed at a place of the history

    def compose(self) -> ComposeResult:
        prompt, fields = self._first
        editor = Editor(without_steering(prompt), id="editor", compact=True, soft_wrap=True, show_line_numbers=False, tab_behavior="focus", highlight_cursor_line=False)  # fmt: skip
        yield editor
        for row in (("tokens", "steps"), ("stop_at", "contexts"), ("device", "model")):
            with Horizontal(classes="fields -second" if "stop_at" in row else "fields"):
                for name in row:
                    yield from self._field(name, fields)

    def _field(self, name: str, fields: dict[str, str]) -> ComposeResult:
        label, meaning = FIELDS[name]
        yield Label(label)
        field = Input(fields.get(name, ""), id=f"field-{name}", compact=True, select_on_focus=True)
        field.tooltip = meaning
        if name == "device":
            field.suggester = SuggestFromList(["auto", "cpu", "cuda", "mps"])
        yield field

    def on_mount(self) -> None:
        self.editor.move_cursor(self.editor.document.end)

    @property
    def editor(self) -> Editor:
        return self.query_one(Editor)

    @property
    def prompt(self) -> str:
        return self.editor.text.strip()

    @property
    def fields(self) -> dict[str, str]:
        return {name: self.query_one(f"#field-{name}", Input).value.strip() for name in FIELDS}

    def set(self, prompt: str, fields: dict[str, str] | None = None) -> None:
        """Puts a prompt in the editor, and settings beside it."""
        self.editor.text = without_steering(prompt)
        self.editor.move_cursor(self.editor.document.end)
        for name, value in (fields or {}).items():
            self.query_one(f"#field-{name}", Input).value = without_steering(value)

    def offer_models(self, names: list[str]) -> None:
        self.query_one("#field-model", Input).suggester = SuggestFromList(names, case_sensitive=False)

    def show_count(self, count: Count | None, more: int, syntax: Sequence[SyntaxSpan] = ()) -> None:
        """Show the prompt's tokens, how many of the other settings are not the usual ones, and where syntax stands."""
        if count is None:
            words = "tokens are not counted for this model"
        elif count.reserved:
            words = f"{count.reserved} ends what is read"
        elif count.cut is None:
            words = f"{count.tokens} of {count.context} tokens"
        else:
            words = f"{count.tokens} tokens, {count.context} fit"
        self.border_subtitle = f"[$accent]F8[/] {more} set · {words}" if more else words
        self.set_class(count is not None and count.cut is not None, "-over")
        self.editor.mark(count.cut if count else None, syntax)

    @on(TextArea.Changed)
    @on(Input.Changed)
    def _changed(self, event: TextArea.Changed | Input.Changed) -> None:
        event.stop()
        self.post_message(PromptChanged())

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(TrainRequested())

    @on(Editor.Recalled)
    def _recalled(self, event: Editor.Recalled) -> None:
        event.stop()
        at = max(0, min(self._at + event.way, len(self.history)))
        if at != self._at:
            self._edited[self._at] = self.editor.text
            self._at = at
            self.set(self._edited.get(at, self.history[at] if at < len(self.history) else ""))

    def remembered(self, history: list[str]) -> None:
        self.history, self._at = history, len(history)
        self._edited.clear()
