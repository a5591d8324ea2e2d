"""What the command palette offers: everything that a key does, by its name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from textual.app import SystemCommand

if TYPE_CHECKING:
    from softprompt_tui.app import SoftPromptApp


def commands(app: SoftPromptApp) -> Iterable[SystemCommand]:
    yield SystemCommand("Train the prompt", "ctrl+t", app.action_train)
    for name, key in (("prompt", "F2"), ("library", "F4"), ("compose", "F5"), ("runs", "F6")):
        yield SystemCommand(f"Go to {name}", key, partial(app.action_pane, name))
    yield SystemCommand("Show the curve in full", "F3", app.action_plot)
    yield SystemCommand("All settings of a training", "F8", app.action_more)
    yield SystemCommand("Start the worker again", "ctrl+r, where it is gone", app.action_mend)
    yield SystemCommand("Theme", "dark, light, high contrast, the terminal's 16 colours", app.action_change_theme)
    yield SystemCommand("Screenshot", "as SVG", partial(app.deliver_screenshot))
    yield SystemCommand("Help", "F1", app.action_help)
    yield SystemCommand("Quit", "ctrl+q; what trains goes on", app.action_leave)
