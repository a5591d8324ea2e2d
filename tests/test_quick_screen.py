"""The tests' fast screen shows the same as pyte's own screen."""

from __future__ import annotations

import random

import pyte
import pytest

from tests.quick_screen import QuickScreen, QuickStream

PIECES = (
    "a fox ", "x" * 30, "┤─│⠙", "雪 wide", "e\u0301", "\u202e", "\x00", "\x07", "\t", "\b", "\r\n", "\n", "\x1b[m",
    "\x1b[0m", "\x1b[1;38;2;9;200;31m", "\x1b[48;5;17;3m", "\x1b[7m", "\x1b[H", "\x1b[3;7H", "\x1b[99;99H", "\x1b[;5H",
    "\x1b[2J", "\x1b[K", "\x1b[4h", "\x1b[4l", "\x1b[?5h", "\x1b[?5l", "\x1b[?7l", "\x1b[?7h", "\x1b[2;6r", "\x1b[?6h",
    "\x1b[?6l", "\x1b[3L", "\x1b[2P", "\x1b]0;title\x07", "\x1bM", "\x1b(0", "\x0e", "\x1b[38;2;1m", "\x1b[1;\x1bm",
    "\x1b7", "\x1b8",
)  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_any_output_in_pieces_of_any_size_gives_the_same_screen(seed: int) -> None:
    rng = random.Random(seed)
    output = "".join(rng.choices(PIECES, k=400)).encode()
    pyte_screen, quick = pyte.Screen(40, 10), QuickScreen(40, 10)
    streams = pyte.ByteStream(pyte_screen), QuickStream(quick)
    while output:
        piece, output = output[: (count := rng.randint(1, 60))], output[count:]
        for stream in streams:
            stream.feed(piece)
        cells = [[[screen.buffer[y][x] for x in range(40)] for y in range(10)] for screen in (pyte_screen, quick)]
        assert cells[0] == cells[1]
        assert (quick.cursor.x, quick.cursor.y, quick.cursor.attrs) == (
            pyte_screen.cursor.x,
            pyte_screen.cursor.y,
            pyte_screen.cursor.attrs,
        )
