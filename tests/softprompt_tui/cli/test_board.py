"""Copying to the clipboard: the notice is true in tmux, in GNU screen and on a plain terminal."""

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
    """A stand-in for the interface that records what it sends to the terminal."""

    def __init__(self) -> None:
        self._clipboard, self.sent = "", ""
        self._driver = self

    def copy_to_clipboard(self, text: str) -> None:
        self._clipboard = text

    def write(self, data: str) -> None:
        self.sent += data


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMUX", "STY"):
        monkeypatch.delenv(name, raising=False)


def copy_text(app: Any, text: str = TEXT) -> str:
    return asyncio.run(copy(app, text))


@pytest.fixture
def tmux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Start a tmux server whose default settings ignore OSC 52, and return the client command that reaches it."""
    if not shutil.which("tmux"):
        pytest.skip("needs tmux")
    command = ["tmux", "-S", str(tmp_path / "tmux"), "-f", "/dev/null"]
    subprocess.run([*command, "new-session", "-d", "cat"], check=True)
    monkeypatch.setenv("TMUX", f"{tmp_path / 'tmux'},1,0")
    yield command
    subprocess.run([*command, "kill-server"], check=True)


def test_tmux_gets_the_text_in_its_buffer(tmux: list[str]) -> None:
    app = App()
    assert copy_text(app) == "is in tmux's buffer (prefix ] pastes it) and was sent to the terminal"
    assert subprocess.run([*tmux, "show-buffer"], check=True, capture_output=True).stdout.decode() == TEXT
    assert app._clipboard == TEXT


def test_without_a_tmux_server_the_terminal_gets_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", f"{tmp_path}/no-such-server,1,0")
    for path in ("/nowhere", None):
        with monkeypatch.context() as patch:
            if path:
                patch.setenv("PATH", path)
            app = App()
            assert copy_text(app) == "was sent to the terminal's clipboard (OSC 52)"
            assert app._clipboard == TEXT


def test_gnu_screen_gets_the_text_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STY", "1.pts-0.here")
    app = App()
    assert "sent to the terminal" in copy_text(app)
    pieces = re.findall(r"\x1bP(.*?)\x1b\\", app.sent, re.DOTALL)
    assert max(map(len, pieces)) < 512  # screen cuts longer sequences
    sequence = re.fullmatch(r"\x1b\]52;c;([^\a]*)\a", "".join(pieces))
    assert sequence
    assert b64decode(sequence[1]).decode() == TEXT
