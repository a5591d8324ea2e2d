"""Send the same keys to two interfaces, in one burst and key by key, and compare the results.

Each interface has its own copy of the same home.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from softprompt import Library
from tests.fake_worker import FakeWorker
from tests.library_model import a_prompt
from tests.pty_screen import Terminal

KEYS = {
    "enter": "\r", "tab": "\t", "shift+tab": "\x1b[Z", "backspace": "\x7f", "space": " ", "up": "\x1b[A",
    "down": "\x1b[B", "right": "\x1b[C", "left": "\x1b[D", "home": "\x1b[H", "end": "\x1b[F", "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~", "f1": "\x1bOP", "f2": "\x1bOQ", "f3": "\x1bOR", "f4": "\x1bOS", "f5": "\x1b[15~",
    "f6": "\x1b[17~", "f8": "\x1b[19~", "f9": "\x1b[20~",
    "escape": "\x1b[27u",  # a bare ESC with the next letter of a burst would be alt+letter, as on every terminal
}  # fmt: skip
# Excludes keys that quit, start work or depend on the clock: ctrl+q, ctrl+t, F7, ctrl+s, x, e, f, ctrl+z.
LETTERS = "rtNduncijkgGoabvy/1[]"
MOVES = ("f2", "f3", "f4", "f4", "f4", "f5", "f6", "f9", "f1", "tab", "shift+tab")
EDITS = (
    "enter",
    "enter",
    "escape",
    "escape",
    "backspace",
    "space",
    "up",
    "down",
    "left",
    "right",
    "home",
    "end",
    "pageup",
    "pagedown",
)
# Whole gestures make a random burst open the search, a rename and a field often enough, and type into them.
GESTURES = (
    ("f4", "r", "d", "u", "s", "k", "enter"), ("f4", "/", "f", "o", "x", "enter"), ("f4", "/", "d", "u", "escape"),
    ("f4", "d", "u"), ("f4", "t", "r", "a", "enter"), ("f2", "tab", "1", "tab", "2"), ("f5", "[", "f", "o", "tab"),
    ("f4", "n", "a", "b"), ("f4", "N", "d", "space", "u", "enter"), ("f8", "a", "tab", "1", "enter"),
)  # fmt: skip
ENTRY_COUNT = 24
FIRST_COMPARED_LINE = 1  # line 0 shows news, which depend on the clock
EQUAL_WITHIN_SECONDS = 30.0  # notices cover the panes for a while, and the machine may be busy


def random_keys(seed: int, length: int = 40) -> list[str]:
    """Return random keys: names of `KEYS`, or letters."""
    rng = random.Random(seed)
    keys: list[str] = []
    while len(keys) < length:
        kind = rng.random()
        if kind < 0.2:
            keys += rng.choice(GESTURES)
        elif kind < 0.3:
            keys.append(rng.choice(MOVES))
        else:
            keys.append(rng.choice(EDITS if kind < 0.6 else LETTERS))
    return keys[:length]


def create_home(home: Path) -> None:
    """Create the home that both interfaces start from."""
    os.environ["SOFTPROMPT_HOME"] = str(home)
    library = Library()
    for i, words in zip(range(ENTRY_COUNT), ("fox", "dusk", "mill", "lake") * ENTRY_COUNT, strict=False):
        library.save(
            a_prompt(
                name=f"{words}-{i:02}", hard_prompt=f"{words} number {i}", created=f"2026-01-01T00:00:{i:02}+00:00"
            ),
            id=f"{i:016x}",
        )
    prompts = ["an older prompt", "a later prompt"]
    (home / "data" / "interface.json").write_text(json.dumps({"prompt": "a red fox", "prompts": prompts}))


class InterfacePair:
    """Two interfaces. `burst` gets all keys at once, `slow` gets them one by one."""

    def __init__(self, burst: Terminal, slow: Terminal, homes: tuple[Path, Path]) -> None:
        self.burst, self.slow, self.homes = burst, slow, homes

    def type(self, keys: list[str]) -> None:
        """Type the keys into both interfaces, and wait until neither draws anything more."""
        os.write(self.burst.master, b"".join(map(key_bytes, keys)))
        for key in keys:
            os.write(self.slow.master, key_bytes(key))
            self.slow.settle()
            self.burst.read(0)
        self.burst.settle()

    def find_difference(self) -> str:
        """Wait until both interfaces are in the same state. Return "", or a description of what still differs."""
        deadline = time.monotonic() + EQUAL_WITHIN_SECONDS
        while (difference := self._current_difference()) and time.monotonic() < deadline:
            while not (self.burst.read(0.05) or self.slow.read(0.05)) and time.monotonic() < deadline:
                pass
            self.burst.settle()
            self.slow.settle()
        return difference

    def _current_difference(self) -> str:
        for terminal in (self.burst, self.slow):
            assert terminal.process.poll() is None, f"the interface has ended:\n{terminal.text}"
        if screen_state(self.burst) != screen_state(self.slow):
            return f"the screen after the burst:\n{self.burst.text}\nthe screen key by key:\n{self.slow.text}"
        libraries = [library_contents(home) for home in self.homes]
        return (
            ""
            if libraries[0] == libraries[1]
            else f"the library after the burst:\n{libraries[0]}\nthe library key by key:\n{libraries[1]}"
        )

    def quit(self) -> None:
        """Quit both interfaces, and check that they saved equal settings."""
        for terminal in (self.burst, self.slow):
            for _ in range(4):  # leave open dialogs
                os.write(terminal.master, key_bytes("escape"))
                terminal.settle()
            terminal.press("ctrl+q")
            terminal.settle()
            if terminal.process.poll() is None:
                terminal.press("k")
            assert terminal.wait_for_exit() == 0, terminal.text
            assert b"Traceback" not in terminal.output
        settings = [json.loads((home / "data" / "interface.json").read_text()) for home in self.homes]
        assert settings[0] == settings[1]


def key_bytes(key: str) -> bytes:
    return KEYS.get(key, key).encode()


def screen_state(terminal: Terminal) -> list[Any]:
    """Return the screen's rows with their colours, which show the focus. Leaves out ages and times of day."""
    buffer, width = terminal.screen.buffer, terminal.screen.columns
    rows = []
    for y in range(FIRST_COMPARED_LINE, terminal.screen.lines):
        cells = [buffer[y][x] for x in range(width)]
        text = re.sub(r"\b\d+ s\b|\d\d:\d\d:\d\d", "", "".join(cell.data for cell in cells))
        rows.append((text, [(cell.fg, cell.bg, cell.reverse, cell.bold) for cell in cells]))
    return rows


def library_contents(home: Path) -> dict[str, Any]:
    """Return the library and the trash of a home."""
    os.environ["SOFTPROMPT_HOME"] = str(home)
    library = Library()
    return {
        "entries": sorted((entry.id, entry.name, entry.tags, entry.note) for entry in library.list(limit=1000).entries),
        "trash": sorted((entry.id, entry.name) for entry in library.list(trashed=True, limit=1000).entries),
    }


@contextmanager
def fake_workers(homes: tuple[Path, ...]) -> Iterator[None]:
    """Run a fake worker for each home, all in one thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    running = []
    for home in homes:
        os.environ["SOFTPROMPT_HOME"] = str(home)
        running.append(asyncio.run_coroutine_threadsafe(FakeWorker().__aenter__(), loop).result())
    try:
        yield
    finally:
        for worker in running:
            asyncio.run_coroutine_threadsafe(worker.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def start_pair(folder: Path) -> Iterator[InterfacePair]:
    """Start both interfaces, with homes under `folder`."""
    environment = {name: os.environ.get(name) for name in ("SOFTPROMPT_HOME", "SOFTPROMPT_RUNTIME")}
    with ExitStack() as stack:
        runtime = stack.enter_context(tempfile.TemporaryDirectory(prefix="sp"))
        os.environ["SOFTPROMPT_RUNTIME"] = runtime
        homes = (folder / "burst", folder / "slow.")
        create_home(homes[0])
        shutil.copytree(homes[0], homes[1])
        stack.enter_context(fake_workers(homes))
        terminals = [stack.enter_context(Terminal(SOFTPROMPT_HOME=str(home))) for home in homes]
        for terminal in terminals:
            terminal.wait_for("worker ready", "fox-00|mill-22|lake-23", within=60)
            terminal.settle()
        try:
            yield InterfacePair(*terminals, homes)
        finally:
            for name, value in environment.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
