"""The terminal gets only what it does not show yet, and shows the same as if it got everything."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pyte
import pytest

from softprompt_tui.terminal_output import FrameDiff

COLUMNS, ROWS = 30, 6
WORDS = ("a", "fox", "lake", " ", "    ", "⣀⣤⣶", "─────", "雪", "é", "e\u0301", "👩‍🎨", "sunrise over it")
STYLES = ("", "\x1b[1m", "\x1b[38;2;1;2;3m", "\x1b[38;2;1;2;3;48;5;9m")


def piece(text: str, style: str) -> str:
    return f"{style}{text}\x1b[0m" if style else text


def frame(rng: random.Random, rows: int = ROWS) -> str:
    """Return a frame as Textual writes it: some rows, from some column on, in several styles."""
    parts = []
    for row in sorted(rng.sample(range(1, ROWS + 1), rows)):
        column = rng.choice((1, 1, rng.randrange(1, COLUMNS - 5)))
        text, pieces = "", []
        while len(text) < COLUMNS - column - 16 and rng.random() < 0.9:
            word = rng.choice(WORDS)
            text += word
            pieces.append(piece(word, rng.choice(STYLES)))
        parts.append(f"\x1b[{row};{column}H" + "".join(pieces or ["-"]))
    return "\n".join(parts) + f"\x1b[{rng.randrange(1, ROWS)};{rng.randrange(1, COLUMNS)}H"


class Pair:
    """Two terminals: one gets everything, the other what FrameDiff leaves."""

    def __init__(self) -> None:
        self.diff = FrameDiff()
        self.whole, self.reduced = (pyte.Screen(COLUMNS, ROWS) for _ in range(2))
        self.streams = pyte.Stream(self.whole), pyte.Stream(self.reduced)

    def write(self, data: str) -> str:
        left = self.diff.reduce(data)
        self.streams[0].feed(data)
        self.streams[1].feed(left)
        return left

    def show_the_same(self) -> bool:
        cursors = [(screen.cursor.x, screen.cursor.y) for screen in (self.whole, self.reduced)]
        return cursors[0] == cursors[1] and all(
            self.whole.buffer[y][x] == self.reduced.buffer[y][x] for y in range(ROWS) for x in range(COLUMNS)
        )


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    pair.write("\x1b[?1049h")
    yield pair
    assert pair.show_the_same()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_painted_the_terminal_shows_the_same(pair: Pair, seed: int) -> None:
    rng = random.Random(seed)
    frames: list[str] = []
    for _ in range(60):
        data = rng.choice(frames) if frames and rng.random() < 0.3 else frame(rng, rng.randrange(1, ROWS + 1))
        frames.append(data)
        if rng.random() < 0.05:
            pair.write(rng.choice(("\x1b[2J", "\x1b[3;4Hsomething\x1b[Kelse", "\x1b[?2026$p", "\x1b]0;title\x07")))
        pair.write(data)
        assert pair.show_the_same(), frames


def test_a_frame_that_changes_nothing_only_places_the_cursor(pair: Pair) -> None:
    data = f"\x1b[1;1H{piece('Prompt', STYLES[1])}  {piece('F7', STYLES[2])}\n\x1b[2;1Ha red fox\x1b[2;4H"
    assert pair.write(data) == data.replace("\n", "")
    assert pair.write(data) == "\x1b[2;4H"


def test_of_a_changed_row_only_the_changed_piece_is_sent(pair: Pair) -> None:
    def row(step: str) -> str:
        return f"\x1b[1;1H{piece('best .9988 so far', STYLES[1])}{piece(step, STYLES[2])} of 300\x1b[1;1H"

    pair.write(row("41"))
    assert pair.write(row("42")) == f"\x1b[1;18H{piece('42', STYLES[2])}\x1b[1;1H"


@pytest.mark.parametrize("width", ["雪", "e\u0301", "👩‍🎨"])
def test_a_row_whose_width_terminals_disagree_on_is_always_sent_whole(pair: Pair, width: str) -> None:
    data = f"\x1b[1;1Ha {piece(width, STYLES[1])} fox\x1b[1;1H"
    assert [pair.write(data) for _ in range(2)] == [data] * 2


@pytest.mark.parametrize("other", ["\x1b[2J", "\x1b[?1049h", "text without a place", "\x1b[1;1Hfox\x1b[K", "\x1bc"])
def test_after_anything_but_a_frame_the_next_frame_is_sent_whole(pair: Pair, other: str) -> None:
    data = "\x1b[1;1Ha red fox\x1b[1;2H"
    pair.write(data)
    assert pair.write(other) == other
    assert pair.write(data) == data


@pytest.mark.parametrize("passive", ["\x1b[?2026h", "\x1b[?2026l", "\x1b[?2026$p", "\x1b]9;done\x07", "\x07"])
def test_marks_and_questions_around_frames_change_nothing(pair: Pair, passive: str) -> None:
    data = "\x1b[1;1Ha red fox\x1b[1;2H"
    pair.write(data)
    assert pair.write(passive) == passive
    assert pair.write(data) == "\x1b[1;2H"
