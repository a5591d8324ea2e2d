"""Copy text for the user: through tmux if the interface runs in it, otherwise through the terminal (OSC 52)."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from subprocess import DEVNULL, PIPE
from typing import Any

from textual.app import App

TMUX_SECONDS = 2.0  # time for tmux to take the text
MAX_SCREEN_BYTES = 400  # GNU screen passes on at most this much in one piece


async def copy(app: App[Any], text: str) -> str:
    """Copy `text` to the clipboard. Return a phrase such as "was sent to the terminal's clipboard".

    With `set-clipboard` off, its default, tmux ignores OSC 52 from the programs inside it, but its own command always
    works. A terminal does not confirm OSC 52, so the phrase only says that the text was sent.
    """
    if os.environ.get("TMUX") and await _copy_to_tmux(text):
        app._clipboard = text
        return "is in tmux's buffer (prefix ] pastes it) and was sent to the terminal"
    app.copy_to_clipboard(text)
    if os.environ.get("STY") and app._driver is not None:
        app._driver.write(wrap_for_screen(f"\x1b]52;c;{b64encode(text.encode()).decode()}\a"))
    return "was sent to the terminal's clipboard (OSC 52)"


async def _copy_to_tmux(text: str) -> bool:
    for options in (["-w"], []):  # since tmux 3.2, -w also sends the text to the terminal
        try:
            process = await asyncio.create_subprocess_exec(
                "tmux", "load-buffer", *options, "-", stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL
            )
            await asyncio.wait_for(process.communicate(text.encode()), TMUX_SECONDS)
        except TimeoutError:
            process.kill()
            return False
        except OSError:
            return False
        if process.returncode == 0:
            return True
    return False


def wrap_for_screen(sequence: str) -> str:
    """Return a sequence wrapped in device control strings, which GNU screen passes to the terminal unchanged."""
    length = MAX_SCREEN_BYTES if sequence.isascii() else MAX_SCREEN_BYTES // 4  # characters of up to four bytes
    pieces = (sequence[at : at + length] for at in range(0, len(sequence), length))
    return "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)
