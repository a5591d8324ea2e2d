"""The keys that hold on the main screen, and those that hold everywhere."""

from __future__ import annotations

from textual.binding import Binding, BindingType

PANE_ACTIONS = {"help", "pane", "plot", "train", "sweep", "more", "harden", "copy_hard"}
PANES: list[BindingType] = [
    Binding("question_mark", "help", "Help", show=False),
    Binding("f2", "pane('prompt')", "Prompt", show=False, priority=True),
    Binding("f3", "plot", "Plot", show=False, priority=True),
    Binding("f4", "pane('library')", "Library", show=False, priority=True),
    Binding("f5", "pane('compose')", "Compose", show=False, priority=True),
    Binding("f6", "pane('runs')", "Runs", show=False, priority=True),
    Binding("f9", "pane('readout')", "Readout", show=False, priority=True),
    Binding("ctrl+t", "train", "Train"),
    Binding("f7", "sweep", "Sweep", show=False, priority=True),
    Binding("f1", "help", "Help", key_display="F1", priority=True),
    Binding("ctrl+q", "app.leave", "Quit"),  # not priority: after ctrl+t it asks about that training first
    Binding("f8", "more", "Settings", show=False, priority=True),
]
EVERYWHERE: list[BindingType] = [
    Binding("ctrl+r", "mend", "Start worker", show=False),
    Binding("ctrl+c", "help_quit", show=False, system=True),
    Binding("escape", "quiet", "Put notices away", show=False),
    # at once, not when what has the focus has had its turn: a letter typed right after is meant for the next field
    Binding("tab", "field(1)", "Next field", show=False, priority=True),
    Binding("shift+tab", "field(-1)", "Field before", show=False, priority=True),
]
