"""What the command palette offers: everything that a key does, by its name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from textual.app import SystemCommand

from softprompt_tui.widgets.library import ACTIONS as LIBRARY
from softprompt_tui.widgets.runs import ACTIONS as RUNS

if TYPE_CHECKING:
    from softprompt_tui.app import SoftPromptApp


def commands(app: SoftPromptApp) -> Iterable[SystemCommand]:
    yield SystemCommand("Train the prompt", "ctrl+t", app.action_train)
    yield SystemCommand("Sweep the prompt", "F7: 1 to 16 soft tokens at once, to choose from", app.action_sweep)
    yield SystemCommand(
        "Look for a hard readout", "x in readout: of what is shown, real words that can be pasted", app.action_harden
    )
    yield SystemCommand("Copy the hard readout", "y in readout", app.action_copy_hard)
    for name, key in (("prompt", "F2"), ("library", "F4"), ("compose", "F5"), ("runs", "F6"), ("readout", "F9")):
        yield SystemCommand(f"Go to {name}", key, partial(app.action_pane, name))
    yield SystemCommand("Show the curve in full", "F3", app.action_plot)
    yield SystemCommand("All settings of a training", "F8", app.action_more)
    library, runs = app.library_pane, app.runs_pane
    for key, (action, words) in LIBRARY.items():
        yield SystemCommand(f"Library: {words}", f"{key}, of the one under the cursor", partial(library.action_act, action))
    for key, (action, words) in RUNS.items():
        yield SystemCommand(f"Runs: {words}", f"{key}, of the one under the cursor", partial(runs.action_act, action))
    yield SystemCommand("Train the composition", "ctrl+s in compose", app.compose_pane.action_keep)
    yield SystemCommand("Start the worker again", "ctrl+r, where it is gone", app.action_mend)
    yield SystemCommand("Theme", "dark, light, high contrast, the terminal's 16 colours", app.action_change_theme)
    yield SystemCommand("Screenshot", "as SVG", partial(app.deliver_screenshot))
    yield SystemCommand("Help", "F1", app.action_help)
    yield SystemCommand("Quit", "ctrl+q; what trains goes on", app.action_leave)
