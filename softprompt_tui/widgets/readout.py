"""The readout: the soft tokens' nearest words as one line, and the table of each with its alternatives."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from rich.text import Text
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Static

from softprompt_tui.inert import inert

WIDE = 60  # cells from which the alternatives have their cosines beside them
NOTHING = "The nearest words of every soft token will stand here."


@dataclass(frozen=True)
class Readout:
    """`rows`: for each soft token its nearest words with their cosines, the nearest first. The similarities are None until they are known."""

    text: str
    rows: tuple[tuple[tuple[str, float], ...], ...]
    as_text: float | None = None
    soft: float | None = None


class ReadoutPane(VerticalScroll):
    """Marks which words have changed since it was last shown the same thing."""

    def __init__(self) -> None:
        super().__init__(id="readout-pane", classes="pane")
        self.border_title = "Readout"
        self._of = ""
        self._shown: Readout | None = None
        self._changed: set[int] = set()
        self._lines = -1

    def compose(self) -> ComposeResult:
        yield Static(NOTHING, id="readout", markup=False)

    def show(self, of: str, readout: Readout) -> None:
        """`of` tells whose it is: a word counts as changed only against the same one's."""
        before = self._shown.rows if self._shown and self._of == of else readout.rows
        changed = {
            i for i, row in enumerate(readout.rows) if row and (i >= len(before) or not before[i] or before[i][0][0] != row[0][0])
        }
        if self._of == of and readout == self._shown and changed == self._changed:
            return
        self._of, self._shown, self._changed = of, readout, changed
        self._draw()

    def nothing(self, why: str = "") -> None:
        self._of, self._shown, self._lines = "", None, -1
        self.query_one("#readout", Static).update(why or NOTHING)

    def on_resize(self) -> None:
        if self._shown:
            self._draw()

    def _draw(self) -> None:
        assert self._shown is not None
        width = max(20, self.size.width - 3)
        text = Text(overflow="fold").append(f"{inert(self._shown.text)}\n", "bold")
        soft, typed = (("…" if value is None else f"{value:.4f}") for value in (self._shown.soft, self._shown.as_text))
        text.append("as text ", "dim").append(typed).append("   soft tokens ", "dim").append(soft)
        words = min(max((cell_len(inert(row[0][0])) for row in self._shown.rows if row), default=4), max(8, width // 3))
        for i, row in enumerate(self._shown.rows):
            if not row:
                continue
            (word, cosine), *others = row
            text.append(f"\n{f'[v{i + 1}]':<6}", "dim")
            text.append(set_cell_size(inert(word), words), "bold reverse" if i in self._changed else "bold")
            text.append(f" {cosine:.2f} ")
            room = width - 6 - words - 6
            for other, near in others:
                part = f" {inert(other)} {near:.2f}" if width >= WIDE else f" {inert(other)}"
                if cell_len(part) > room:
                    break
                room -= cell_len(part)
                text.append(part, "dim")
        lines = text.plain.count("\n") + len(textwrap.wrap(text.plain.partition("\n")[0], width))
        self.query_one("#readout", Static).update(text, layout=lines != self._lines)
        self._lines = lines
