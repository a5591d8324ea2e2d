"""The command palette: every keyboard action by name."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Self

from textual.app import SystemCommand

from softprompt_tui.widgets.library import ACTIONS as LIBRARY
from softprompt_tui.widgets.runs import ACTIONS as RUNS

if TYPE_CHECKING:
    from softprompt_tui.main_screen import MainScreen


class OrderedTitle(str):
    """A title that sorts by its place, and before every plain title. Textual sorts commands by their titles."""

    place: int

    def __new__(cls, title: str, place: int) -> Self:
        ordered = super().__new__(cls, title)
        ordered.place = place
        return ordered

    def __lt__(self, other: str) -> bool:
        return self.place < other.place if isinstance(other, OrderedTitle) else True

    def __gt__(self, other: str) -> bool:
        return self.place > other.place if isinstance(other, OrderedTitle) else False


def commands(main: MainScreen) -> Iterable[SystemCommand]:
    """Yield the commands of the main screen, the most used ones first."""
    for place, command in enumerate(_commands(main)):
        yield command._replace(title=OrderedTitle(command.title, place))


def _commands(main: MainScreen) -> Iterable[SystemCommand]:
    yield SystemCommand("Train the prompt", "ctrl+t", main.action_train)
    yield SystemCommand("Stop the run in view", "ctrl+x; the best so far is kept", main.action_stop_run)
    yield SystemCommand("Sweep the prompt", "F7: train 1 to 16 soft tokens at once and choose", main.action_sweep)
    yield SystemCommand("Train the composition", "ctrl+s in compose", main.compose_pane.action_keep)
    yield SystemCommand("All training settings", "F8", main.action_more)
    yield SystemCommand("Models: choose, pull, delete", "ctrl+o", main.action_models)
    yield SystemCommand(
        "Search for a hard readout", "x in readout: real words with the same meaning", main.action_harden
    )
    yield SystemCommand("Copy the hard readout", "y in readout", main.action_copy_hard)
    yield SystemCommand("Show the full curve", "F3", main.action_plot)
    for name, key in (("prompt", "F2"), ("library", "F4"), ("compose", "F5"), ("runs", "F6"), ("readout", "F9")):
        yield SystemCommand(f"Go to {name}", key, partial(main.action_pane, name))
    yield SystemCommand("Explain the pane and its keys", "F1", main.action_help)
    yield SystemCommand("Explain the words on the screen", "?", main.action_words)
    yield SystemCommand("Guides", "read and search them; d in the help", main.action_guides)
    library, runs = main.library_pane, main.runs_pane
    for key, (on_entry, words) in LIBRARY.items():
        yield SystemCommand(
            f"Library: {words}", f"{key}, for the entry under the cursor", partial(library.action_act, on_entry)
        )
    for key, (on_run, words) in RUNS.items():
        yield SystemCommand(f"Runs: {words}", f"{key}, for the run under the cursor", partial(runs.action_act, on_run))
    yield SystemCommand("Notify when a long run ends", main.bell.describe(), main.choose_bell)
