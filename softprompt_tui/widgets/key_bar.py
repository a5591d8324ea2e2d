"""The bottom line: the keys available right now.

Textual's Footer creates one widget per key at every focus change; this bar draws one line.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import events
from textual.reactive import reactive
from textual.screen import Screen
from textual.widget import Widget


class ShownKey(NamedTuple):
    """A key in the bar. A click presses it only if it is `enabled`."""

    key: str
    display: str
    description: str
    enabled: bool
    tooltip: str


FOLLOWS = {"ctrl+x": "ctrl+t"}  # text fields bind ctrl+x themselves, which would put it first


def _in_order(keys: list[ShownKey]) -> list[ShownKey]:
    """Return the keys with those of FOLLOWS right after the key that they follow."""
    for key, before in FOLLOWS.items():
        moved = [shown for shown in keys if shown.key == key]
        rest = [shown for shown in keys if shown.key != key]
        if moved and (place := next((i for i, shown in enumerate(rest) if shown.key == before), None)) is not None:
            keys = [*rest[: place + 1], *moved, *rest[place + 1 :]]
    return keys


class KeyBar(Widget):
    """One line of clickable keys, with the command palette's key at the right end if it fits."""

    ALLOW_SELECT = False
    COMPONENT_CLASSES: ClassVar[set[str]] = {"key-bar--key", "key-bar--words", "key-bar--edge", "key-bar--hovered"}
    DEFAULT_CSS = """
    KeyBar {
        dock: bottom; height: 1; text-wrap: nowrap; pointer: pointer;
        color: $footer-foreground; background: $footer-background;
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
        has_dialog = self.app.screen is not self.screen
        by_action: dict[str, ShownKey] = {}
        palette = None
        for active in screen.active_bindings.values():
            binding = active.binding
            shown = ShownKey(
                binding.key, self.app.get_key_display(binding), binding.description, active.enabled, active.tooltip
            )
            # with a dialog open, a screen action would run on the dialog
            if binding.show and not (has_dialog and binding.action.startswith("screen.")):
                by_action.setdefault(binding.action, shown)
            if binding.key == self.app.COMMAND_PALETTE_BINDING:
                palette = shown._replace(tooltip=active.tooltip or binding.description)
        if (shown_now := _in_order(list(by_action.values()))) != self.shown or palette != self.palette:
            self.shown, self.palette = shown_now, palette
            self.refresh()

    def render(self) -> Text:
        line = Text(end="")
        for key in self.shown:
            text = self._render_key(key)
            if line.cell_len + len(text.plain.rstrip()) > self.size.width:  # never show part of a key
                break
            line.append_text(text)
        if self.palette is not None and self._has_room:
            right = Text("▏", self.get_component_rich_style("key-bar--edge"))
            right.append_text(self._render_key(self.palette, compact=True))
            if line.cell_len + right.cell_len <= self.size.width:
                line.pad_right(self.size.width - right.cell_len - line.cell_len)
                line.append_text(right)
        return line

    @property
    def _has_room(self) -> bool:
        return not self.compact and not self.screen.has_class("-narrow")

    def _render_key(self, key: ShownKey, compact: bool = False) -> Text:
        bold, plain = self.get_component_rich_style("key-bar--key"), self.get_component_rich_style("key-bar--words")
        parts = (key.display, bold), (f" {key.description} ", plain)
        if not (self.compact or compact):
            parts = (f" {key.display} ", bold), (f"{key.description} ", plain)
        text = Text.assemble(*parts)
        if not key.enabled:
            text.stylize("dim")
        if key == self.hovered:
            text.stylize(self.get_component_rich_style("key-bar--hovered"))
        return text

    def _find_key(self, x: int) -> ShownKey | None:
        """Return the key at column `x`."""
        if self.palette is not None and self._has_room:
            palette_start = self.size.width - self._render_key(self.palette, compact=True).cell_len
            if x >= palette_start:
                return self.palette
        end = 0
        for key in self.shown:
            end += self._render_key(key).cell_len
            if x < end:
                return key
        return None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        pressed = self._find_key(event.x)
        if pressed is None:
            return
        if pressed.enabled:
            self.app.simulate_key(pressed.key)
        else:
            self.app.bell()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.hovered = self._find_key(event.x)
        self.tooltip = self.hovered.tooltip if self.hovered else None

    def on_leave(self) -> None:
        self.hovered = None
