"""What is told from one part of the interface to another: panes say what is wanted, controllers say what has changed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from softprompt.worker.summary import RunReport, RunSummary


class OnEntry(StrEnum):
    """What can be done with entries of the library."""

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
    """What can be done with a run."""

    SHOW = "show"
    STOP = "stop"
    PAUSE = "pause"
    UP = "up"
    DOWN = "down"
    RETRY = "retry"
    DROP = "drop"
    HARDEN = "harden"


# what panes and screens ask for


class TrainAsked(Message):
    """The prompt in the editor is to be trained."""


class PromptChanged(Message):
    """The prompt or a setting beside it is another."""


@dataclass(eq=False)
class EntryHighlighted(Message):
    """The library's cursor is on an entry, moved there `by_hand` or by the list's change; its id, or "" where there is none."""

    entry: str
    by_hand: bool = True


@dataclass(eq=False)
class EntryAction(Message):
    """Something is to be done with entries."""

    action: OnEntry
    entries: tuple[str, ...]


@dataclass(eq=False)
class RunAction(Message):
    """Something is to be done with a run."""

    action: OnRun
    run: str


@dataclass(eq=False)
class KeepAsked(Message):
    """Those of a sweep's soft prompts that have these numbers of tokens are to be saved."""

    run: str
    numbers: tuple[int, ...]


class CompositionKept(Message):
    """A soft prompt is to be trained that means the composition."""


class CompositionChanged(Message):
    """The composition, or the text it is compared with, is another."""


# what has changed


@dataclass(eq=False)
class LinkChanged(Message):
    """The connection to the worker is another: being made ("starting"), there ("up") or "gone", and what to say of it."""

    state: str
    why: str


@dataclass(eq=False)
class RunsListed(Message):
    """The worker has told its first runs; `going` is the first of those that train or wait, or ""."""

    going: str


class RunsChanged(Message):
    """The list of runs has others, or is in another order."""


@dataclass(eq=False)
class RunChanged(Message):
    """A run is another than `before`, which is None for one that was not known."""

    run: RunSummary
    before: RunSummary | None


@dataclass(eq=False)
class RunReported(Message):
    """A run has come further."""

    report: RunReport


@dataclass(eq=False)
class RunSubmitted(Message):
    """The worker has taken a run that was asked for here."""

    run: str


class PromptsChanged(Message):
    """The prompts that are remembered, or the settings beside the editor, are others."""


@dataclass(eq=False)
class LibraryChanged(Message):
    """The library is another; the cursor goes to the entry `to`, or stays where it was: `by_hand` tells what a key here did from the rest."""

    to: str = ""
    by_hand: bool = True


class MarksSpent(Message):
    """What the marks in the library's list were for is done."""


class OpenedChanged(Message):
    """Another entry is open, or none, or it has another name."""


@dataclass(eq=False)
class EntryShown(Message):
    """An entry is to be seen in the panes of loss and readout."""

    entry: str


@dataclass(eq=False)
class ShownEntryGone(Message):
    """The entry that was shown is there no more: what the library's cursor is on takes its place."""

    entry: str


@dataclass(eq=False)
class DetailChanged(Message):
    """What loss, readout and details show is another; it is painted soon, or `at_once`."""

    at_once: bool = False


@dataclass(eq=False)
class SweepReady(Message):
    """A sweep that was asked for can be watched."""

    run: str


class SweepChanged(Message):
    """What the screen of a sweep shows is another."""


@dataclass(eq=False)
class PromptFilled(Message):
    """A prompt with settings stands ready to be trained."""

    prompt: str
    fields: dict[str, str]


@dataclass(eq=False)
class CompositionExtended(Message):
    """Text goes into the composition."""

    text: str
