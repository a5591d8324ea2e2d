"""What panes tell the application. They never touch each other."""

from __future__ import annotations

from textual.message import Message


class TrainAsked(Message):
    """The prompt in the editor is to be trained."""


class PromptChanged(Message):
    """The prompt or a setting beside it is another."""


class EntryHighlighted(Message):
    """The library's cursor is on an entry, moved there `by_hand` or by the list's change; its id, or "" where there is none."""

    def __init__(self, entry: str, by_hand: bool = True) -> None:
        super().__init__()
        self.entry, self.by_hand = entry, by_hand


class EntryAction(Message):
    """Something is to be done with entries: open, rename, tag, note, delete, undo, vary, copy, compare, export,
    import, harden, copy_hard."""

    def __init__(self, action: str, entries: tuple[str, ...]) -> None:
        super().__init__()
        self.action, self.entries = action, entries


class RunAction(Message):
    """Something is to be done with a run: show, stop, pause, up, down, retry, drop, harden."""

    def __init__(self, action: str, run: str) -> None:
        super().__init__()
        self.action, self.run = action, run


class CompositionKept(Message):
    """A soft prompt is to be trained that means the composition."""


class CompositionChanged(Message):
    """The composition, or the text it is compared with, is another."""
