"""The prompt pane: an editor with a token count, and the most important settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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

from softprompt_tui.messages import PromptChanged
from softprompt_tui.rendering.sanitize import strip_control_chars
from softprompt_tui.state.fields import KIND_DEFAULTS
from softprompt_tui.state.fields import PROMPT_FIELDS as FIELDS
from softprompt_tui.state.settings import DEFAULT_MODEL
from softprompt_tui.widgets.choice_input import ChoiceInput
from softprompt_tui.widgets.device_field import DeviceField
from softprompt_tui.widgets.field_help import FieldHelp
from softprompt_tui.widgets.line_input import COMPACT, LineInput, is_alt_key
from softprompt_tui.widgets.pane import pane_title

if TYPE_CHECKING:
    from softprompt.config import ModelKind
    from softprompt.prompts.syntax import SyntaxSpan
    from softprompt.system.devices import DeviceFacts
    from softprompt_tui.services.token_count import TokenCount

ROWS = (("tokens", "steps"), ("stop_at", "contexts"), ("device", "model"))  # of fields, in the order of tab

PROMPT = "pane('prompt')"
EXAMPLE = "a red fox asleep in deep snow"


class Editor(TextArea):
    """The prompt editor. Up in the first line and down in the last line browse the prompt history.

    Text that the model ignores is struck through; image-program syntax is underlined.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+t", "train", "Train"),
        # ctrl+a stays at the start of the line, as in a shell; ctrl+shift+a does not arrive in most terminals
        Binding("ctrl+l,ctrl+shift+a", "select_all", "Select all", show=False),
        Binding("ctrl+g", "clear_all", "Clear", show=False),
        Binding("alt+d", "delete_word_right", "Delete right to start of word", show=False),
    ]

    class Recalled(Message):
        """The user wants the previous (-1) or next (1) prompt from the history."""

        def __init__(self, direction: int) -> None:
            super().__init__()
            self.direction = direction

    cut: int | None = None
    syntax: Sequence[SyntaxSpan] = ()

    def on_mount(self) -> None:
        # the text area's own F7 would move the key to the start of the key bar, before Train
        for key in ("f6", "f7"):
            self._bindings.key_to_bindings.pop(key, None)

    def action_clear_all(self) -> None:
        """Remove the whole prompt. Undo brings it back."""
        self.clear()

    def get_line(self, line_index: int) -> Text:
        line = super().get_line(line_index)
        if self.cut is None and not self.syntax:
            return line
        offset = cast(Document, self.document).get_index_from_location((line_index, 0))
        for span in self.syntax:
            style = "strike dim" if span.kind == "infotext" else "underline"
            line.stylize(style, max(0, span.start - offset), max(0, span.end - offset))
        if self.cut is not None:
            line.stylize("strike dim", max(0, self.cut - offset), max(0, len(line)))
        return line

    def mark(self, cut: int | None, syntax: Sequence[SyntaxSpan]) -> None:
        """Strike through the text from `cut` on, and mark image-program syntax."""
        if (cut, syntax) != (self.cut, self.syntax):
            self.cut, self.syntax = cut, syntax
            self._line_cache.clear()
            self.refresh()

    def scroll_cursor_visible(self, center: bool = False, animate: bool = False) -> Offset:
        if self.has_focus:
            return super().scroll_cursor_visible(center, animate)
        self.scroll_home(animate=False)  # without focus, show the beginning of the prompt
        return Offset()

    def on_resize(self) -> None:
        self.call_after_refresh(self._paint_again)  # otherwise lines with the previous wrapping stay on the screen

    def _paint_again(self) -> None:
        self._line_cache.clear()
        self.refresh()

    def on_blur(self) -> None:
        self.scroll_cursor_visible()

    def on_focus(self) -> None:
        self.call_after_refresh(self.scroll_cursor_visible)

    async def action_train(self) -> None:
        """Train right away. A message would arrive after the next key, which may be ctrl+q."""
        await self.screen.run_action("train")

    async def _on_key(self, event: events.Key) -> None:
        if is_alt_key(event):
            event.prevent_default()  # otherwise Textual also types the letter
            return
        row = self.wrapped_document.location_to_offset(self.cursor_location).y
        if event.key == "up" and row == 0:
            self.post_message(self.Recalled(-1))
        elif event.key == "down" and row == self.wrapped_document.height - 1:
            self.post_message(self.Recalled(1))
        else:
            return
        event.prevent_default()  # otherwise Textual also passes the key to TextArea
        event.stop()


class PromptPane(Vertical):
    """The editor and the settings below it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "f7",
            "screen.sweep",
            "Sweep",
            key_display="F7",
            priority=True,
            tooltip="Train with every token count from 1 to 16, then choose",
        ),
        Binding("f8", "screen.more", "Settings", key_display="F8", priority=True),
    ]

    def __init__(self, prompt: str, fields: dict[str, str], history: list[str]) -> None:
        super().__init__(id="prompt-pane", classes="pane")
        self.border_title = f"{pane_title('F2', 'Prompt', PROMPT)}  {pane_title('F7', 'sweep', 'sweep', chosen=False)}"
        self._initial = prompt, fields
        self.history = history
        self._position = len(history)  # in the history; len(history) is the new prompt
        self._drafts: dict[int, str] = {}  # edited text by history position

    def compose(self) -> ComposeResult:
        prompt, fields = self._initial
        editor = Editor(
            strip_control_chars(prompt),
            id="editor",
            soft_wrap=True,
            show_line_numbers=False,
            tab_behavior="focus",
            highlight_cursor_line=False,
            placeholder=EXAMPLE,
        )
        editor.add_class(COMPACT, update=False)
        yield editor
        explanation = FieldHelp(id="field-help")
        explanation.display = False
        yield explanation
        for row in ROWS:
            with Horizontal(classes="fields -second" if "stop_at" in row else "fields"):
                for name in row:
                    yield from self._field(name, fields)

    def _field(self, name: str, fields: dict[str, str]) -> ComposeResult:
        field, value, id = FIELDS[name], fields.get(name, ""), f"field-{name}"
        yield Label(field.label)
        if name == "device":
            yield DeviceField(value)
        elif field.choices:
            yield ChoiceInput(field, value, id)
        else:
            yield LineInput(value, id=id)

    def on_descendant_focus(self) -> None:
        self._explain()

    def on_descendant_blur(self, event: events.DescendantBlur) -> None:
        self._explain()
        if event.widget.id == "field-model":
            self._adopt_defaults()

    def _adopt_defaults(self) -> None:
        """Replace the defaults of another kind of model by those of the chosen model."""
        fields, chosen = self.fields, KIND_DEFAULTS[self.model_kind]
        for defaults in KIND_DEFAULTS.values():
            for name, value in defaults.items():
                if fields[name] == value != chosen[name]:
                    self.set_field(name, chosen[name])

    @property
    def model_kind(self) -> ModelKind:
        """The kind of the chosen model."""
        from softprompt.encoders.catalog import model_kind  # not needed for the first paint

        return model_kind(self.fields["model"] or DEFAULT_MODEL)

    def _explain(self) -> None:
        """Explain the focused field above the fields. The editor, which is not in use then, gives up the lines."""
        focused = self.app.focused
        name = (focused.id or "").removeprefix("field-") if isinstance(focused, Input) else ""
        explanation = self.query_one(FieldHelp)
        explanation.display = name in FIELDS
        if explanation.display and isinstance(focused, Input):
            field = FIELDS[name]
            if name in KIND_DEFAULTS["text"]:
                field = replace(field, default=KIND_DEFAULTS[self.model_kind][name])
            explanation.show(field, focused.value)

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
        """Replace the prompt and the given settings."""
        self.editor.text = strip_control_chars(prompt)
        self.editor.move_cursor(self.editor.document.end)
        for name, value in (fields or {}).items():
            self.query_one(f"#field-{name}", Input).value = strip_control_chars(value)

    def set_field(self, name: str, value: str) -> None:
        self.query_one(f"#field-{name}", Input).value = strip_control_chars(value)
        if name == "model":
            self._adopt_defaults()

    def offer_models(self, names: list[str]) -> None:
        self.query_one("#field-model", Input).suggester = SuggestFromList(names, case_sensitive=False)

    def show_devices(self, devices: Sequence[DeviceFacts], trouble: str) -> None:
        """List the devices below their field, or say why they are unknown."""
        self.query_one(DeviceField).show(devices, trouble)

    def show_count(self, count: TokenCount | None, changed_settings: int, syntax: Sequence[SyntaxSpan] = ()) -> None:
        """Show the token count and the number of changed settings, and mark cut text and syntax in the editor."""
        if not self.prompt:
            words = ""
        elif count is None:
            words = "no token count for this model"
        elif count.reserved:
            words = f"cut off at {count.reserved}"
        elif count.cut_at is None:
            words = f"{count.tokens} of {count.context_length} tokens"
        else:
            words = f"{count.tokens} tokens, {count.context_length} fit"
        settings = f"[$accent]F8[/] {changed_settings} set" if changed_settings else ""
        self.border_subtitle = " · ".join(filter(None, (settings, words)))
        self.set_class(count is not None and count.cut_at is not None, "-over")
        self.editor.mark(count.cut_at if count else None, syntax)

    @on(TextArea.Changed)
    @on(Input.Changed)
    def _changed(self, event: TextArea.Changed | Input.Changed) -> None:
        event.stop()
        if self.query_one(FieldHelp).display:
            self._explain()
        self.post_message(PromptChanged())

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        """Go to the next field. The last one leads back to the editor."""
        event.stop()
        names = [f"field-{name}" for row in ROWS for name in row]
        index = names.index(event.input.id or "") + 1
        self.screen.set_focus(self.query_one(f"#{names[index]}") if index < len(names) else self.editor)

    @on(Editor.Recalled)
    def _recalled(self, event: Editor.Recalled) -> None:
        event.stop()
        position = max(0, min(self._position + event.direction, len(self.history)))
        if position != self._position:
            self._drafts[self._position] = self.editor.text
            self._position = position
            self.set(self._drafts.get(position, self.history[position] if position < len(self.history) else ""))

    def set_history(self, history: list[str]) -> None:
        self.history, self._position = history, len(history)
        self._drafts.clear()
