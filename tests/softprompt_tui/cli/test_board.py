"""Copying: what is said of it is true in tmux, in GNU screen and on a plain terminal."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softprompt_tui.services.clipboard import copy

TEXT = "gïbberish [fox] " * 60


class App:
    """Stands for the interface: keeps what goes to the terminal."""

    def __init__(self) -> None:
        self._clipboard, self.sent = "", ""
        self._driver = self

    def copy_to_clipboard(self, text: str) -> None:
        self._clipboard = text

    def write(self, data: str) -> None:
        self.sent += data


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)


def copied(app: Any, text: str = TEXT) -> str:
    return asyncio.run(copy(app, text))


@pytest.fixture
def tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A tmux server with its default settings, which take no OSC 52 from programs; the command that reaches it."""
    if not shutil.which("tmux"):
        pytest.skip("needs tmux")
    command = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
    subprocess.run([*command, "new-session", "-d", "cat"], check=True)
    monkeypatch.setenv("TMUX", f"{tmp_path / 'tmux'},1,0")
    yield command
    subprocess.run([*command, "kill-server"], check=True)


def test_in_tmux_its_own_command_copies(tmux: list[str]) -> None:
    app = App()
    assert copied(app) == "is in tmux's buffer (prefix ] pastes it) and was sent to the terminal"
    assert subprocess.run([*tmux, "show-buffer"], check=True, capture_output=True).stdout.decode() == TEXT
    assert app._clipboard == TEXT


def test_where_tmux_does_not_answer_the_terminal_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", f"{tmp_path}/no-such-server,1,0")
    for path in ("/nowhere", None):
        with monkeypatch.context() as patch:
            if path:
                patch.setenv("PATH", path)
            app = App()
            assert copied(app) == "was sent to the terminal's clipboard (OSC 52)"
            assert app._clipboard == TEXT


def test_gnu_screen_passes_it_on_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STY", "1.pts-0.here")
    app = App()
    assert "sent to the terminal" in copied(app)
    pieces = re.findall(r"\x1bP(.*?)\x1b\\", app.sent, re.DOTALL)
    assert max(map(len, pieces)) < 512  # screen cuts longer ones
    sequence = re.fullmatch(r"\x1b\]52;c;([^\a]*)\a", "".join(pieces))
    assert sequence
    assert b64decode(sequence[1]).decode() == TEXT
