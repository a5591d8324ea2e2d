"""Copying for the user: through tmux where we run in it, else through the terminal (OSC 52)."""

from __future__ import annotations

import asyncio
import os
from base64 import b64encode
from subprocess import DEVNULL, PIPE
from typing import Any

from textual.app import App

TMUX_WITHIN = 2.0  # seconds
MAX_SCREEN_BYTES = 400  # bytes that GNU screen passes on in one piece


async def copy(app: App[Any], text: str) -> str:
    """Copy `text` and return where it is now, as the end of a sentence.

    tmux takes no OSC 52 from the programs in it unless `set-clipboard` is on, which is not its default; its own command
    always works. A terminal does not answer, so no more is said of it than that it was asked.
    """
    if os.environ.get("TMUX") and await _give_to_tmux(text):
        app._clipboard = text
        return "is in tmux's buffer (prefix ] pastes it), and sent on to the terminal"
    app.copy_to_clipboard(text)
    if os.environ.get("STY") and app._driver is not None:
        app._driver.write(_through_screen(text))
    return "is sent to the terminal, to be copied (OSC 52)"


async def _give_to_tmux(text: str) -> bool:
    for options in (["-w"], []):  # -w, since tmux 3.2, also sends it to the terminal
        try:
            process = await asyncio.create_subprocess_exec(
                "tmux", "load-buffer", *options, "-", stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL
            )
            await asyncio.wait_for(process.communicate(text.encode()), TMUX_WITHIN)
        except TimeoutError:
            process.kill()
            return False
        except OSError:
            return False
        if process.returncode == 0:
            return True
    return False


def _through_screen(text: str) -> str:
    """OSC 52 in device control strings, which GNU screen passes on to the terminal without a look at them."""
    sequence = f"\x1b]52;c;{b64encode(text.encode()).decode()}\a"
    pieces = (sequence[at : at + MAX_SCREEN_BYTES] for at in range(0, len(sequence), MAX_SCREEN_BYTES))
    return "".join(f"\x1bP{piece}\x1b\\" for piece in pieces)
