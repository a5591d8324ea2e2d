"""The bottom line: the keys available right now.

Textual's Footer creates one widget per key at every focus change; this bar draws one line.
"""

from __future__ import annotations

from collections.abc import Iterable
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


FIRST = ("ctrl+t", "ctrl+x", "enter")  # what is needed most comes first, on every screen
LAST = ("question_mark", "f1", "escape", "ctrl+q")  # help and the way out are at the right end, on every screen
IF_ROOM = "question_mark"  # shown only beside all other keys


def in_order(keys: Iterable[ShownKey]) -> list[ShownKey]:
    """Return the keys of FIRST, then those of the focused pane in their order, then those of LAST."""
    places = {key: place for place, key in enumerate((*FIRST, "", *LAST))}
    return sorted(keys, key=lambda shown: places.get(shown.key, len(FIRST)))


class Place(NamedTuple):
    """A key in the bar and its column."""

    column: int
    text: Text
    key: ShownKey

    @property
    def end(self) -> int:
        return self.column + self.text.cell_len


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
        return in_order(keys)

    def render(self) -> Text:
        line = Text(end="")
        for column, text, _ in self._places():
            line.pad_right(column - line.cell_len)
            line.append_text(text)
        return line

    def _places(self) -> list[Place]:
        """Return the keys that fit: help and the way out at the right end, the others from the left end on.

        The palette, and then the words, get a place only if there is room for all other keys.
        """
        left = [Place(0, self._render_key(key), key) for key in self.shown if key.key not in LAST]
        right = [Place(0, self._render_key(key), key) for key in self.shown if key.key in LAST]
        words = [place for place in right if place.key.key == IF_ROOM]
        right = [place for place in right if place not in words]
        if self.palette is not None and self._has_room:
            edge = Text("▏", self.get_component_rich_style("key-bar--edge"))
            palette = Place(0, edge.append_text(self._render_key(self.palette, compact=True)), self.palette)
            right += [palette] * (_width([*left, *right, palette]) <= self.size.width)
        room = self.size.width + self.compact  # compact: without the last space
        if _width([*words, *left, *right]) <= room:
            right = [*words, *right]
        start = max(0, room - _width(right))
        places, column = list[Place](), 0
        for place in left:
            if column + len(place.text.plain.rstrip()) > start:  # never show part of a key
                break
            places.append(place._replace(column=column))
            column = places[-1].end
        for place in right:
            places.append(place._replace(column=start))
            start = places[-1].end
        return places

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
        return next((place.key for place in self._places() if place.column <= x < place.end), None)

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


def _width(places: Iterable[Place]) -> int:
    return sum(place.text.cell_len for place in places)


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
        return in_order(sorted(keys, key=lambda shown: own.index(shown.key) if shown.key in own else -1))

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
