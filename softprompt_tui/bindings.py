"""The key bindings of the main screen and of the application. Panes and dialogs bind their own keys in `BINDINGS`."""

from __future__ import annotations

from textual.binding import Binding, BindingType

PANE_ACTIONS = {
    "help", "words", "pane", "plot", "train", "sweep", "more", "models", "harden", "copy_hard", "stop_run",
}  # fmt: skip
MAIN_BINDINGS: list[BindingType] = [
    Binding("f2", "pane('prompt')", "Prompt", show=False, priority=True),
    Binding("f3", "plot", "Plot", show=False, priority=True),
    Binding("f4", "pane('library')", "Library", show=False, priority=True),
    Binding("f5", "pane('compose')", "Compose", show=False, priority=True),
    Binding("f6", "pane('runs')", "Runs", show=False, priority=True),
    Binding("f9", "pane('readout')", "Readout", show=False, priority=True),
    Binding("ctrl+t", "train", "Train"),
    Binding("ctrl+x", "stop_run", "Stop this", priority=True),
    Binding("f7", "sweep", "Sweep", show=False, priority=True),
    Binding("question_mark", "words", "Words", key_display="?"),
    Binding("f1", "help", "Help", key_display="F1", priority=True),
    Binding("ctrl+q", "app.leave", "Quit"),  # no priority: right after ctrl+t, it must ask about that run
    Binding("f8", "more", "Settings", show=False, priority=True),
    Binding("ctrl+o", "models", "Models", show=False, priority=True),
]
APP_BINDINGS: list[BindingType] = [
    Binding("ctrl+r", "reconnect", "Start worker", show=False),
    Binding("ctrl+c", "help_quit", show=False, system=True),
    Binding("escape", "dismiss_notices", "Dismiss notices", show=False),
    # priority, so that the focus moves before the next typed letter arrives
    Binding("tab", "field(1)", "Next field", show=False, priority=True),
    Binding("shift+tab", "field(-1)", "Previous field", show=False, priority=True),
]
