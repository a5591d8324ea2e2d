"""The readout pane: compares soft tokens, their nearest words and the hard readout, and lists each token's words."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll

from softprompt.prompts.results import AnswerSample
from softprompt.prompts.sweep_result import SweepResult
from softprompt_tui.rendering.answers import WORDS_NOTE
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.rendering.sweep_text import describe_sweep
from softprompt_tui.widgets.pane import explain_when_empty, pane_title
from softprompt_tui.widgets.steady_text import SteadyText

COSINES_FROM_WIDTH = 60  # cells; narrower panes list alternatives without cosines
BARS_FROM_WIDTH = 56  # cells; narrower panes show the texts instead of the bars of the similarities
BAR_CELLS, SMALL_BAR_CELLS, LONG_BAR_CELLS = 20, 6, 40
MAX_WORD_CELLS = 16  # of an alternative
LABEL_CELLS, VALUE_CELLS = 8, 7  # widths of the two columns before the text; 20 cells are left at 80 columns
TOKEN_CELLS, COSINE_CELLS = 6, 6  # widths of the columns before and after a nearest word
ANSWER_LABEL_CELLS = 10  # of a language model's questions and answers
ANSWERS_FROM_HEIGHT = 4  # lines of a question with its three answers
TABLE_FROM_HEIGHT = 3  # lines; shorter panes show the three similarities in one line
MAX_TEXT_LENGTH = 600  # characters; imported files can contain anything
KEY_X = pane_title("x", "hard readout", "harden", chosen=False)
KEY_Y = pane_title("y", "copy it", "copy_hard", chosen=False)
KEY_SWEEP = pane_title("F6 enter", "opens the sweep", "pane('runs')", chosen=False)
PLACEHOLDER = "Shows the nearest words of each soft token."
MEANINGS = (  # shown where there is room
    ("soft", "how similar the soft tokens are to the prompt"),
    ("as text", "the same of their nearest words, typed as a text"),
    ("hard", "the same of real words, which x searches for"),
    ("[v1]", "the first soft token: its nearest words and their cosines"),
)


class HardReadoutView(NamedTuple):
    """A hard readout, possibly not final, and the status of its search. Without one, `text` is "".

    `can_search` is whether a search can start now.
    """

    text: str = ""
    similarity: float | None = None
    status: str = ""
    can_search: bool = False


class Readout(NamedTuple):
    """The readout of a soft prompt. `rows` holds each token's nearest words with cosines, nearest first.

    `text` joins the nearest word of every token. Similarities are None while unknown. A language model has answers to
    questions instead of similarities. A sweep has a line for each token count.
    """

    text: str
    rows: tuple[tuple[tuple[str, float], ...], ...]
    as_text: float | None = None
    soft: float | None = None
    hard: HardReadoutView = HardReadoutView()
    is_language_model: bool = False
    samples: tuple[AnswerSample, ...] = ()
    sweep: tuple[SweepResult, ...] = ()  # of a sweep, which has nothing but these
    objective: str = ""  # of a sweep


class ReadoutPane(VerticalScroll):
    """Shows a readout and highlights the words that have changed since the previous one of the same run or entry."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"readout--bar", "readout--rest"}
    DEFAULT_CSS = """
    ReadoutPane > .readout--bar { color: $primary; }
    ReadoutPane > .readout--rest { color: $border-blurred; }
    ReadoutPane > #readout.-placeholder { color: $text-muted; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "x",
            "screen.harden",
            "Hard readout",
            tooltip="Search for real words with the same meaning",
        ),
        Binding("y", "screen.copy_hard", "Copy it"),
    ]

    def __init__(self) -> None:
        super().__init__(id="readout-pane", classes="pane")
        self.border_title = pane_title("F9", "Readout", "pane('readout')")
        self._subject = self._message = ""
        self._shown: Readout | None = None
        self._changed: set[int] = set()

    def compose(self) -> ComposeResult:
        yield SteadyText(id="readout", classes="-placeholder", markup=False)

    @property
    def hard(self) -> HardReadoutView | None:
        return self._shown.hard if self._shown else None

    def show(self, subject: str, readout: Readout) -> None:
        """Show the readout of `subject`, the id of a run or entry. For a new subject, no word counts as changed."""
        before = self._shown.rows if self._shown and self._subject == subject else readout.rows
        changed = {
            i
            for i, row in enumerate(readout.rows)
            if row and (i >= len(before) or not before[i] or before[i][0][0] != row[0][0])
        }
        if self._subject == subject and readout == self._shown and changed == self._changed:
            return
        self._subject, self._shown, self._changed = subject, readout, changed
        self._draw()

    def show_hard(self, hard: HardReadoutView) -> None:
        """Replace the hard readout of the current subject."""
        if self._shown and self._shown.hard != hard:
            self._shown = self._shown._replace(hard=hard)
            self._draw()

    def clear(self, message: str = "") -> None:
        self._subject, self._shown, self._message = "", None, message
        self.border_subtitle = ""
        text = Text(message) if message else explain_when_empty(PLACEHOLDER, MEANINGS, self.size)
        self.query_one("#readout", SteadyText).add_class("-placeholder").show(text)

    def on_resize(self) -> None:
        if self._shown is None:
            self.clear(self._message)
        self.repaint()

    def repaint(self) -> None:
        """Paint the same readout again, in another width or theme."""
        if self._shown:
            self._draw()

    def _draw(self) -> None:
        assert self._shown is not None
        width = max(20, self.size.width - 1)  # leaves room for the scrollbar
        if self._shown.sweep:
            style = self.get_component_rich_style("readout--bar", partial=True)
            lines = describe_sweep(self._shown.sweep, self._shown.objective, width, style)
        elif self._shown.is_language_model:
            lines = self._answers(self._shown, width)
        else:
            comparison = (
                self._comparison(self._shown, width)
                if self.size.height >= TABLE_FROM_HEIGHT
                else [_one_line(self._shown, width)]
            )
            gap = [Text()] if self.size.height >= len(comparison) + len(self._shown.rows) + 2 else []
            lines = [*comparison, *gap]
        lines += self._token_lines(self._shown, width, self.size.height - len(lines))
        text = Text("\n").join(lines)
        hard = self._shown.hard
        keys = [KEY_X] * hard.can_search + [KEY_Y] * bool(hard.text)
        self.border_subtitle = KEY_SWEEP if self._shown.sweep else "  ".join(keys)
        shown = self.query_one("#readout", SteadyText)
        shown.remove_class("-placeholder")
        shown.show(text)

    def _answers(self, shown: Readout, width: int) -> list[Text]:
        """Return as many questions with their three answers as fit, and what the words below them mean."""
        if shown.samples and self.size.height < ANSWERS_FROM_HEIGHT:
            return _first_answers(shown.samples[0], width, self.size.height)
        lines: list[Text] = []
        for sample in shown.samples:
            block: list[Text] = []
            for label, answer, style in (
                ("question", sample.question, "bold"), ("soft", sample.soft, ""), ("hard", sample.hard, ""),
                ("none", sample.none, ""),
            ):  # fmt: skip
                text = Text(_cut(answer.replace("\n", " ")), style)
                wrapped = text.wrap(self.app.console, max(8, width - ANSWER_LABEL_CELLS), overflow="fold") or [Text()]
                labels = [label, *[""] * (len(wrapped) - 1)]
                block += [
                    Text.assemble((f"{name:<{ANSWER_LABEL_CELLS}}", "dim"), line)
                    for name, line in zip(labels, wrapped, strict=True)
                ]
            if lines and len(lines) + len(block) + 1 > self.size.height:
                break
            lines += [*([Text()] if lines else []), *block]
        gap = [Text()] if lines else []
        return [*lines, *gap, Text(f"{WORDS_NOTE[:1].upper()}{WORDS_NOTE[1:]}.", "dim italic")]

    def _comparison(self, shown: Readout, width: int) -> list[Text]:
        """Return one row per similarity, each with its text."""
        count = len(shown.rows)
        soft = Text(f"{count} soft token{'s' * (count != 1)}", "dim")
        typed = Text(_cut(shown.text))
        hard = Text().append(_cut(shown.hard.text), "bold")
        if shown.hard.status:
            hard.append("\n" * bool(hard)).append(_cut(shown.hard.status), "dim")
        return [
            *self._row("soft", shown.soft, soft, width),
            *self._row("as text", shown.as_text, typed, width),
            *self._row("hard", shown.hard.similarity, hard, width, "…" if shown.hard.text else "-"),
        ]

    def _row(self, label: str, similarity: float | None, text: Text, width: int, unknown: str = "…") -> list[Text]:
        """Return the lines of a row, with wrapped text aligned under its first line."""
        number = unknown if similarity is None else format_number(similarity)
        head = Text.assemble((f"{label:<{LABEL_CELLS}}", "dim"), (f"{number:<{VALUE_CELLS - 1}} ", "bold"))
        if width >= BARS_FROM_WIDTH:
            bar = Text(" " * BAR_CELLS) if similarity is None else self._bar(similarity, BAR_CELLS)
            head.append_text(bar).append("  ")
        wrapped = text.wrap(self.app.console, max(8, width - len(head)), overflow="fold") or [Text()]
        return [head + wrapped[0], *(Text(" " * len(head)).append_text(line) for line in wrapped[1:])]

    def _bar(self, share: float, cells: int) -> Text:
        """Return a bar of this share of the cells. The rest is a thin line: other bars have other lengths."""
        filled = round(min(1.0, max(0.0, share)) * cells)
        style = self.get_component_rich_style("readout--bar", partial=True)
        rest = self.get_component_rich_style("readout--rest", partial=True)
        return Text("━" * filled, style).append("─" * (cells - filled), rest)

    def _token_lines(self, shown: Readout, width: int, height: int) -> list[Text]:
        """Return each soft token's nearest words with bars, or as many words as fit into one line for each token."""
        words = [sanitize(word) for row in shown.rows for word, _ in row]
        word_width = min(max(map(cell_len, words), default=4), MAX_WORD_CELLS)
        if len(words) <= height:
            bar_cells = min(LONG_BAR_CELLS, width - TOKEN_CELLS - word_width - COSINE_CELLS)
            return self._all_words(shown, word_width, max(SMALL_BAR_CELLS, bar_cells), 1)
        columns = max(1, (width - TOKEN_CELLS) // (word_width + COSINE_CELLS + SMALL_BAR_CELLS + 2))
        lines = self._all_words(shown, word_width, SMALL_BAR_CELLS, columns)
        return lines if len(lines) <= height else self._nearest_words(shown, width)

    def _all_words(self, shown: Readout, word_width: int, bar_cells: int, columns: int) -> list[Text]:
        """Return every word of every token, each with its cosine and a bar, in columns."""
        lines = []
        for i, row in enumerate(shown.rows):
            for start in range(0, len(row), columns):
                line = Text(f"{f'[v{i + 1}]' if not start else '':<{TOKEN_CELLS}}", "dim")
                for j, (word, cosine) in enumerate(row[start : start + columns], start):
                    style = ("bold reverse" if i in self._changed else "bold") if not j else ""
                    line.append_text(_fitted(word, word_width, style)).append(f" {cosine:.2f} ", "" if not j else "dim")
                    line.append_text(self._bar(cosine, bar_cells)).append("  ")
                line.rstrip()
                lines.append(line)
        return lines

    def _nearest_words(self, shown: Readout, width: int) -> list[Text]:
        """Return each soft token's nearest word, with as many alternatives as fit."""
        word_width = min(
            max((cell_len(sanitize(row[0][0])) for row in shown.rows if row), default=4), max(8, width // 3)
        )
        lines = []
        for i, row in enumerate(shown.rows):
            if not row:
                continue
            (word, cosine), *others = row
            line = Text().append(f"{f'[v{i + 1}]':<{TOKEN_CELLS}}", "dim")
            line.append_text(_fitted(word, word_width, "bold reverse" if i in self._changed else "bold"))
            line.append(f" {cosine:.2f} ")
            remaining = width - TOKEN_CELLS - word_width - COSINE_CELLS
            for other, similarity in others:
                part = f" {sanitize(other)} {similarity:.2f}" if width >= COSINES_FROM_WIDTH else f" {sanitize(other)}"
                if cell_len(part) > remaining:
                    break
                remaining -= cell_len(part)
                line.append(part, "dim")
            lines.append(line)
        return lines


def _fitted(word: str, width: int, style: str) -> Text:
    """Return a word in exactly `width` cells."""
    fitted = Text(sanitize(word), style)
    fitted.truncate(width, overflow="ellipsis", pad=True)
    return fitted


def _first_answers(sample: AnswerSample, width: int, height: int) -> list[Text]:
    """Return the lines of a question that matter most: the soft prompt's answer, the hard prompt's, the question."""
    lines = []
    for label, text in (("question", sample.question), ("soft", sample.soft), ("hard", sample.hard))[height < 3 :]:
        line = Text.assemble((f"{label:<{ANSWER_LABEL_CELLS}}", "dim"), _cut(text.replace("\n", " ")))
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    return lines


def _one_line(shown: Readout, width: int) -> Text:
    """Return the three similarities in one line."""
    line = Text()
    for label, similarity in (("soft", shown.soft), ("as text", shown.as_text), ("hard", shown.hard.similarity)):
        line.append(f"{label} ", "dim").append(format_number(similarity), "bold").append("  ")
    line.append(_cut(shown.hard.text or shown.text)).truncate(width, overflow="ellipsis")
    return line


def _cut(text: str) -> str:
    return sanitize(text if len(text) <= MAX_TEXT_LENGTH else f"{text[: MAX_TEXT_LENGTH - 1]}…")
