"""The last line: the keys that hold where one is. Textual's Footer makes a widget for each of them anew at every move of the focus."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import events
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget


class ShownKey(NamedTuple):
    """A key on the line, and what it does in a word. Only a click on one that is `enabled` presses it."""

    key: str
    display: str
    words: str
    enabled: bool
    tooltip: str


class KeyBar(Widget):
    """One line of keys, each of which a click presses too; the command palette's at its right end, where there is room."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-bar--key", "key-bar--words", "key-bar--edge", "key-bar--hovered"}
    DEFAULT_CSS = """
    KeyBar {
        dock: bottom; height: 1; text-wrap: nowrap; color: $footer-foreground; background: $footer-background; pointer: pointer;
        .key-bar--key { color: $footer-key-foreground; text-style: bold; }
        .key-bar--words { color: $footer-description-foreground; }
        .key-bar--edge { color: $foreground 20%; }
        .key-bar--hovered { background: $block-hover-background; }
    }
    """
    compact = reactive(False)
    hovered: reactive[ShownKey | None] = reactive(None)

    def __init__(self, compact: bool = False) -> None:
        super().__init__()
        self.set_reactive(KeyBar.compact, compact)
        self.shown: list[ShownKey] = []
        self.palette: ShownKey | None = None

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, self._show)

    def _show(self, screen: Screen[object]) -> None:
        if not (self.app.app_focus and self.is_attached and screen is self.screen):
            return
        is_covered = self.app.screen is not self.screen
        by_action: dict[str, ShownKey] = {}
        palette = None
        for active in screen.active_bindings.values():
            binding = active.binding
            shown = ShownKey(
                binding.key, self.app.get_key_display(binding), binding.description, active.enabled, active.tooltip
            )
            # under a dialog such an action would be the dialog's
            if binding.show and not (is_covered and binding.action.startswith("screen.")):
                by_action.setdefault(binding.action, shown)
            if binding.key == self.app.COMMAND_PALETTE_BINDING:
                palette = shown._replace(tooltip=active.tooltip or binding.description)
        if (shown_now := list(by_action.values())) != self.shown or palette != self.palette:
            self.shown, self.palette = shown_now, palette
            self.refresh()

    def render(self) -> Text:
        line = Text(end="")
        for one in self.shown:
            line.append_text(self._drawn(one))
        if self.palette is not None and self._has_room:
            right = Text("▏", self.get_component_rich_style("key-bar--edge"))
            right.append_text(self._drawn(self.palette, compact=True))
            line.truncate(max(0, self.size.width - right.cell_len), pad=True)
            line.append_text(right)
        return line

    @property
    def _has_room(self) -> bool:
        return not self.compact and not self.screen.has_class("-narrow")

    def _drawn(self, one: ShownKey, compact: bool = False) -> Text:
        key, words = self.get_component_rich_style("key-bar--key"), self.get_component_rich_style("key-bar--words")
        parts = (one.display, key), (f" {one.words} ", words)
        if not (self.compact or compact):
            parts = (f" {one.display} ", key), (f"{one.words} ", words)
        drawn = Text.assemble(*parts)
        if not one.enabled:
            drawn.stylize("dim")
        if one == self.hovered:
            drawn.stylize(self.get_component_rich_style("key-bar--hovered"))
        return drawn

    def _at(self, x: int) -> ShownKey | None:
        """The key drawn in a column."""
        if self.palette is not None and self._has_room:
            begins = self.size.width - self._drawn(self.palette, compact=True).cell_len
            if x >= begins:
                return self.palette
        ends = 0
        for one in self.shown:
            ends += self._drawn(one).cell_len
            if x < ends:
                return one
        return None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        pressed = self._at(event.x)
        if pressed is None:
            return
        if pressed.enabled:
            self.app.simulate_key(pressed.key)
        else:
            self.app.bell()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.hovered = self._at(event.x)
        self.tooltip = self.hovered.tooltip if self.hovered else None

    def on_leave(self) -> None:
        self.hovered = None
