"""The readout: what soft tokens, their nearest words and a hard readout come to, side by side, and the nearest words of each token."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.widgets.pane import titled

WIDE = 60  # cells from which the alternatives have their cosines beside them
LABEL, FIGURE = 8, 7  # cells of the columns before the texts
LOW = 3  # lines under which the three similarities stand in one
MAX_TOKENS = 600  # characters of a text that are shown: files may say anything
KEY_X = titled("x", "hard readout", "harden", chosen=False)
KEY_Y = titled("y", "copy it", "copy_hard", chosen=False)
NOTHING = "The nearest words of every soft token will stand here."


class HardReadoutView(NamedTuple):
    """A hard readout as far as there is one, "" and None where there is none, and words on that."""

    text: str = ""
    similarity: float | None = None
    words: str = ""


class Readout(NamedTuple):
    """`rows`: for each soft token its nearest words with their cosines, the nearest first. The similarities are None until they are known."""

    text: str
    rows: tuple[tuple[tuple[str, float], ...], ...]
    as_text: float | None = None
    soft: float | None = None
    hard: HardReadoutView = HardReadoutView()


class ReadoutPane(VerticalScroll):
    """Marks which words have changed since it was last shown the same thing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "x",
            "screen.harden",
            "Hard readout",
            tooltip="Look for real words that carry the meaning when they are typed",
        ),
        Binding("y", "screen.copy_hard", "Copy it"),
    ]

    def __init__(self) -> None:
        super().__init__(id="readout-pane", classes="pane")
        self.border_title = titled("F9", "Readout", "pane('readout')")
        self._of = ""
        self._shown: Readout | None = None
        self._changed: set[int] = set()
        self._lines = -1

    def compose(self) -> ComposeResult:
        yield Static(NOTHING, id="readout", markup=False)

    @property
    def hard(self) -> HardReadoutView | None:
        return self._shown.hard if self._shown else None

    def show(self, of: str, readout: Readout) -> None:
        """`of` tells whose it is: a word counts as changed only against the same one's."""
        before = self._shown.rows if self._shown and self._of == of else readout.rows
        changed = {
            i
            for i, row in enumerate(readout.rows)
            if row and (i >= len(before) or not before[i] or before[i][0][0] != row[0][0])
        }
        if self._of == of and readout == self._shown and changed == self._changed:
            return
        self._of, self._shown, self._changed = of, readout, changed
        self._draw()

    def show_hard(self, hard: HardReadoutView) -> None:
        """The hard readout of what is shown is another."""
        if self._shown and self._shown.hard != hard:
            self._shown = self._shown._replace(hard=hard)
            self._draw()

    def nothing(self, why: str = "") -> None:
        self._of, self._shown, self._lines = "", None, -1
        self.border_subtitle = ""
        self.query_one("#readout", Static).update(why or NOTHING)

    def on_resize(self) -> None:
        if self._shown:
            self._draw()

    def _draw(self) -> None:
        assert self._shown is not None
        width = max(20, self.size.width - 1)  # beside the scrollbar, be it there or not
        compared = self._compared(self._shown, width) if self.size.height >= LOW else [_in_short(self._shown, width)]
        lines = compared + self._tokens(self._shown, width)
        text = Text("\n").join(lines)
        self.border_subtitle = f"{KEY_X}  {KEY_Y}" if self._shown.hard.text else KEY_X
        self.query_one("#readout", Static).update(text, layout=len(lines) != self._lines)
        self._lines = len(lines)

    def _compared(self, shown: Readout, width: int) -> list[Text]:
        """The three similarities under each other, each beside what it is of."""
        count = len(shown.rows)
        soft = Text(f"{count} soft token{'s' * (count != 1)}", "dim")
        typed = Text(_cut(shown.text))
        hard = Text().append(_cut(shown.hard.text), "bold")
        if shown.hard.words:
            hard.append("\n" * bool(hard)).append(_cut(shown.hard.words), "dim")
        return [
            *self._beside("soft", shown.soft, soft, width),
            *self._beside("as text", shown.as_text, typed, width),
            *self._beside("hard", shown.hard.similarity, hard, width, "…" if shown.hard.text else "-"),
        ]

    def _beside(self, label: str, similarity: float | None, text: Text, width: int, unknown: str = "…") -> list[Text]:
        """A row; the text's further lines stand under its first."""
        figure = unknown if similarity is None else f"{similarity:.4f}"
        wrapped = text.wrap(self.app.console, max(8, width - LABEL - FIGURE), overflow="fold") or [Text()]
        first = Text.assemble((f"{label:<{LABEL}}", "dim"), (f"{figure:<{FIGURE}}", "bold"), wrapped[0])
        return [first, *(Text(" " * (LABEL + FIGURE)).append_text(line) for line in wrapped[1:])]

    def _tokens(self, shown: Readout, width: int) -> list[Text]:
        """Each soft token's nearest word, and as many alternatives as have room."""
        words = min(max((cell_len(sanitize(row[0][0])) for row in shown.rows if row), default=4), max(8, width // 3))
        lines = []
        for i, row in enumerate(shown.rows):
            if not row:
                continue
            (word, cosine), *others = row
            line = Text().append(f"{f'[v{i + 1}]':<6}", "dim")
            line.append(set_cell_size(sanitize(word), words), "bold reverse" if i in self._changed else "bold")
            line.append(f" {cosine:.2f} ")
            room = width - 6 - words - 6
            for other, near in others:
                part = f" {sanitize(other)} {near:.2f}" if width >= WIDE else f" {sanitize(other)}"
                if cell_len(part) > room:
                    break
                room -= cell_len(part)
                line.append(part, "dim")
            lines.append(line)
        return lines


def _in_short(shown: Readout, width: int) -> Text:
    """The three similarities in one line."""
    line = Text()
    for label, similarity in (("soft", shown.soft), ("as text", shown.as_text), ("hard", shown.hard.similarity)):
        line.append(f"{label} ", "dim").append("-" if similarity is None else f"{similarity:.4f}", "bold").append("  ")
    line.append(_cut(shown.hard.text or shown.text)).truncate(width, overflow="ellipsis")
    return line


def _cut(text: str) -> str:
    return sanitize(text if len(text) <= MAX_TOKENS else f"{text[: MAX_TOKENS - 1]}…")
