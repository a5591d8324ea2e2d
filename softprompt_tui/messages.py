"""What is told from one part of the interface to another: panes say what is wanted, controllers say what has changed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from softprompt.worker.summary import RunReport, RunSummary


class OnEntry(StrEnum):
    """An action on entries of the library."""

    OPEN = "open"
    RENAME = "rename"
    TAG = "tag"
    NOTE = "note"
    DELETE = "delete"
    UNDO = "undo"
    VARY = "vary"
    COPY = "copy"
    COMPARE = "compare"
    DETAIL = "detail"
    EXPORT = "export"
    IMPORT = "import"
    HARD_PROMPT = "hard_prompt"
    HARDEN = "harden"
    COPY_HARD = "copy_hard"


class OnRun(StrEnum):
    """An action on a run."""

    SHOW = "show"
    STOP = "stop"
    PAUSE = "pause"
    UP = "up"
    DOWN = "down"
    RETRY = "retry"
    DROP = "drop"
    HARDEN = "harden"


# what panes and screens ask for


class TrainRequested(Message):
    """The prompt in the editor is to be trained."""


class PromptChanged(Message):
    """The prompt or a setting beside it is another."""


class EntryHighlighted(Message):
    """The library's cursor is on an entry, moved there `by_hand` or by the list's change; its id, or "" where there is none."""

    def __init__(self, entry: str, by_hand: bool = True) -> None:
        super().__init__()
        self.entry, self.by_hand = entry, by_hand


class EntryAction(Message):
    """Something is to be done with entries."""

    def __init__(self, action: OnEntry, entries: tuple[str, ...]) -> None:
        super().__init__()
        self.action, self.entries = action, entries


class RunAction(Message):
    """Something is to be done with a run."""

    def __init__(self, action: OnRun, run: str) -> None:
        super().__init__()
        self.action, self.run = action, run


class SweepKeepRequested(Message):
    """Save the sweep's soft prompts with these numbers of tokens."""

    def __init__(self, run: str, numbers: tuple[int, ...]) -> None:
        super().__init__()
        self.run, self.numbers = run, numbers


class CompositionTrainRequested(Message):
    """A soft prompt is to be trained that means the composition."""


class CompositionChanged(Message):
    """The composition, or the text it is compared with, is another."""


# what has changed


class LinkChanged(Message):
    """The connection to the worker has changed its state: "starting", "up" or "gone". `why` explains it to the user, or is ""."""

    def __init__(self, state: str, why: str) -> None:
        super().__init__()
        self.state, self.why = state, why


class RunsListed(Message):
    """The worker has told its first runs; `going` is the first of those that train or wait, or ""."""

    def __init__(self, going: str) -> None:
        super().__init__()
        self.going = going


class RunsChanged(Message):
    """The list of runs has others, or is in another order."""


class RunChanged(Message):
    """A run is another than `before`, which is None for one that was not known. `is_next`: it begins, and nothing else trained that is followed."""

    def __init__(self, run: RunSummary, before: RunSummary | None, is_next: bool) -> None:
        super().__init__()
        self.run, self.before, self.is_next = run, before, is_next


class RunReported(Message):
    """A run has come further."""

    def __init__(self, report: RunReport) -> None:
        super().__init__()
        self.report = report


class RunSubmitted(Message):
    """The worker has taken a run that was asked for here. `is_next`: nothing trained then that is followed."""

    def __init__(self, run: str, is_next: bool) -> None:
        super().__init__()
        self.run, self.is_next = run, is_next


class PromptsChanged(Message):
    """The prompts that are remembered, or the settings beside the editor, are others."""


class LibraryChanged(Message):
    """The library is another; the cursor goes to the entry `to`, or stays where it was: `by_hand` tells what a key here did from the rest."""

    def __init__(self, to: str = "", by_hand: bool = True) -> None:
        super().__init__()
        self.to, self.by_hand = to, by_hand


class MarksSpent(Message):
    """What the marks in the library's list were for is done."""


class OpenedChanged(Message):
    """Another entry is open, or none, or it has another name."""


class EntryShown(Message):
    """An entry is to be seen in the panes of loss and readout."""

    def __init__(self, entry: str) -> None:
        super().__init__()
        self.entry = entry


class ShownEntryGone(Message):
    """The entry that was shown is there no more: what the library's cursor is on takes its place."""

    def __init__(self, entry: str) -> None:
        super().__init__()
        self.entry = entry


class DetailChanged(Message):
    """What loss, readout and details show is another; it is painted soon, or `at_once`."""

    def __init__(self, at_once: bool = False) -> None:
        super().__init__()
        self.at_once = at_once


class SweepReady(Message):
    """A sweep that was asked for can be watched."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


class SweepChanged(Message):
    """What the screen of a sweep shows is another."""


class PromptFilled(Message):
    """A prompt with settings stands ready to be trained."""

    def __init__(self, prompt: str, fields: dict[str, str]) -> None:
        super().__init__()
        self.prompt, self.fields = prompt, fields


class CompositionExtended(Message):
    """Text goes into the composition."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
