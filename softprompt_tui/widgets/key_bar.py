"""The bottom line: the keys available right now.

Textual's Footer creates one widget per key at every focus change; this bar draws one line.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from rich.text import Text
from textual import events
from textual.geometry import Size
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
WAYS_OUT = ("escape", "ctrl+q")  # always shown
IF_ROOM = ("question_mark",)  # shown last, and only beside all other keys


def _after_others(keys: list[ShownKey]) -> list[ShownKey]:
    """Return the keys with those of FOLLOWS right after the key that they follow, and those of IF_ROOM at the end."""
    keys = sorted(keys, key=lambda shown: shown.key in IF_ROOM)
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
    is_in_dialog: ClassVar[bool] = False  # then the keys need as many lines as they take
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
        by_action: dict[str, ShownKey] = {}
        palette = None
        # with a dialog open, the keys of the screen below it do nothing
        for active in screen.active_bindings.values() if self.app.screen is self.screen else ():
            binding = active.binding
            shown = ShownKey(
                binding.key, self.app.get_key_display(binding), binding.description, active.enabled, active.tooltip
            )
            if binding.show:
                by_action.setdefault(binding.action, shown)
            if binding.key == self.app.COMMAND_PALETTE_BINDING:
                palette = shown._replace(tooltip=active.tooltip or binding.description)
        if (shown_now := self._in_order(list(by_action.values()))) != self.shown or palette != self.palette:
            self.shown, self.palette = shown_now, palette
            self.refresh(layout=self.is_in_dialog)

    def _in_order(self, keys: list[ShownKey]) -> list[ShownKey]:
        return _after_others(keys)

    def render(self) -> Text:
        line = Text(end="")
        right = Text("▏", self.get_component_rich_style("key-bar--edge"))
        if self.palette is not None and self._has_room:
            right.append_text(self._render_key(self.palette, compact=True))
        for key in self._fitting_keys(right.cell_len):
            line.append_text(self._render_key(key))
        if self.palette is not None and self._has_room and line.cell_len + right.cell_len <= self.size.width:
            line.pad_right(self.size.width - right.cell_len - line.cell_len)
            line.append_text(right)
        return line

    def _fitting_keys(self, palette_width: int) -> list[ShownKey]:
        """Return the keys that fit, in their order. The way out always does."""
        way_out = next((key for key in self.shown if key.key.partition(",")[0] in WAYS_OUT), None)
        reserved = self._render_key(way_out).cell_len if way_out else 0
        fitting, used, is_full = list[ShownKey](), 0, False
        for key in self.shown:
            if key == way_out:
                reserved = 0
            elif is_full:
                continue
            text = self._render_key(key)
            room = self.size.width - reserved - (palette_width if key.key in IF_ROOM and self.palette else 0)
            if used + len(text.plain.rstrip()) > room:  # never show part of a key
                is_full = True
                continue
            fitting.append(key)
            used += text.cell_len
        return fitting

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

    def _find_key(self, x: int, y: int) -> ShownKey | None:  # noqa: ARG002  # a dialog has several lines
        """Return the key at column `x` and line `y`."""
        if self.palette is not None and self._has_room:
            palette_start = self.size.width - self._render_key(self.palette, compact=True).cell_len
            if x >= palette_start:
                return self.palette
        end, palette_width = 0, self._render_key(self.palette, compact=True).cell_len + 1 if self.palette else 0
        for key in self._fitting_keys(palette_width if self._has_room else 1):
            end += self._render_key(key).cell_len
            if x < end:
                return key
        return None

    def on_mouse_down(self, event: events.MouseDown) -> None:
        pressed = self._find_key(event.x, event.y)
        if pressed is None:
            return
        if pressed.enabled:
            self.app.simulate_key(pressed.key)
        else:
            self.app.bell()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.hovered = self._find_key(event.x, event.y)
        self.tooltip = self.hovered.tooltip if self.hovered else None

    def on_leave(self) -> None:
        self.hovered = None


class DialogKeys(KeyBar):
    """The last lines of a dialog: its keys, on as many lines as they take, or one below the other with `in_rows`."""

    is_in_dialog = True
    DEFAULT_CSS = """
    DialogKeys { dock: bottom; height: auto; margin: 1 0 0 0; background: transparent; }
    """

    def __init__(self, in_rows: bool = False) -> None:
        super().__init__()
        self.in_rows = in_rows

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:  # noqa: ARG002
        return len(self._texts(width))

    def _in_order(self, keys: list[ShownKey]) -> list[ShownKey]:
        """Return the keys in the order in which the dialog binds them, after those of the focused widget."""
        own = list(self.screen._bindings.key_to_bindings)
        return sorted(keys, key=lambda shown: own.index(shown.key) if shown.key in own else -1)

    def _lines(self, width: int) -> list[list[ShownKey]]:
        lines: list[list[ShownKey]] = [[]]
        used = 0
        for key in self.shown:
            cells = self._render_key(key).cell_len
            if lines[-1] and (self.in_rows or used + cells > width):
                lines.append([])
                used = 0
            lines[-1].append(key)
            used += cells
        return lines

    def _render_key(self, key: ShownKey, compact: bool = False) -> Text:  # noqa: ARG002
        widest = max((len(shown.display) for shown in self.shown), default=0) if self.in_rows else 0
        parts = (
            (f"{key.display:<{widest}} ", self.get_component_rich_style("key-bar--key")),
            (f"{' ' * self.in_rows}{key.description}  ", self.get_component_rich_style("key-bar--words")),
        )
        text = Text.assemble(*parts)
        if key == self.hovered:
            text.stylize(self.get_component_rich_style("key-bar--hovered"))
        return text

    def _texts(self, width: int) -> list[tuple[list[ShownKey], Text]]:
        """Return the lines of text, each with its keys. In rows, a long meaning takes several lines."""
        texts = []
        for keys in self._lines(width):
            line = Text().join(map(self._render_key, keys))
            line.rstrip()
            if not self.in_rows:
                texts.append((keys, line))
                continue
            indent = max((len(shown.display) for shown in self.shown), default=0) + 2
            head, words = line[:indent], line[indent:]
            for i, part in enumerate(words.wrap(self.app.console, max(10, width - indent))):
                texts.append((keys, head + part if not i else Text(" " * indent) + part))
        return texts

    def render(self) -> Text:
        return Text("\n").join(text for _, text in self._texts(self.size.width))

    def _find_key(self, x: int, y: int) -> ShownKey | None:
        texts, end = self._texts(self.size.width), 0
        if self.in_rows:
            return texts[y][0][0] if y < len(texts) and texts[y][0] else None
        for key in texts[y][0] if y < len(texts) else ():
            end += self._render_key(key).cell_len
            if x < end:
                return key
        return None
