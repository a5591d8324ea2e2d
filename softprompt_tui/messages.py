"""The messages of the interface. Panes post what the user requests; controllers post what has changed."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from softprompt.worker.summary import RunReport, RunSummary


class OnEntry(StrEnum):
    """An action on library entries."""

    OPEN = "open"
    RENAME = "rename"
    TAG = "tag"
    NOTE = "note"
    DELETE = "delete"
    UNDO = "undo"
    RESTORE = "restore"  # from the trash
    FILTER = "filter"  # by a tag
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
    UNDO = "undo"  # of the last drop
    HARDEN = "harden"
    MODEL = "model"  # choose another one, for a failed run
    DEVICE = "device"
    EDIT = "edit"
    LOG = "log"


class OnModel(StrEnum):
    """An action on a model."""

    PULL = "pull"
    CANCEL = "cancel"
    DELETE = "delete"


# from panes and screens


class PromptChanged(Message):
    """The prompt or a field below it has changed."""


class DevicesRequested(Message):
    """The list of devices is on the screen and should be up to date."""


class EntryHighlighted(Message):
    """The library cursor is on another entry ("" if none).

    Attributes:
        by_user: the user has moved the cursor; otherwise, the list has changed.
        is_new_list: the user has chosen another list: a search, a tag, an order, the trash.
        is_trashed: the entry is in the trash.
    """

    def __init__(self, entry: str, by_user: bool = True, is_new_list: bool = False, is_trashed: bool = False) -> None:
        super().__init__()
        self.entry, self.by_user, self.is_new_list, self.is_trashed = entry, by_user, is_new_list, is_trashed


class TrashToggled(Message):
    """The library pane shows the trash, or the library again."""


class EntryAction(Message):
    """The user wants to act on entries."""

    def __init__(self, action: OnEntry, entries: tuple[str, ...]) -> None:
        super().__init__()
        self.action, self.entries = action, entries


class TagChosen(Message):
    """The library shows only entries with this tag, or all of them if it is ""."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self.tag = tag


class RunAction(Message):
    """The user wants to act on a run."""

    def __init__(self, action: OnRun, run: str) -> None:
        super().__init__()
        self.action, self.run = action, run


class RunHighlighted(Message):
    """The user has moved the cursor of Runs to another run."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


class SweepKeepRequested(Message):
    """The user wants to save the sweep's soft prompts with these token counts."""

    def __init__(self, run: str, token_counts: tuple[int, ...]) -> None:
        super().__init__()
        self.run, self.token_counts = run, token_counts


class CompositionTrainRequested(Message):
    """The user wants to train a soft prompt for the composition."""


class CompositionChanged(Message):
    """The composition, or the text to compare it with, has changed."""


class ModelAction(Message):
    """The user wants to act on a model."""

    def __init__(self, action: OnModel, model: str) -> None:
        super().__init__()
        self.action, self.model = action, model


class ModelChosen(Message):
    """The user wants to use a model for the prompt or, with `for_entry`, to train that entry again for it.

    `is_on_disk` is False if training has to pull the model first.
    """

    def __init__(self, model: str, is_on_disk: bool, for_entry: str = "") -> None:
        super().__init__()
        self.model, self.is_on_disk, self.for_entry = model, is_on_disk, for_entry


class ModelsRequested(Message):
    """The list of models is on the screen and should be up to date."""


# from controllers


class ConnectionChanged(Message):
    """The connection to the worker is now "starting", "up" or "gone". `reason` tells the user why, or is ""."""

    def __init__(self, state: str, reason: str) -> None:
        super().__init__()
        self.state, self.reason = state, reason


class RunsListed(Message):
    """The first page of runs has arrived. `active_run` is the id of the first running or queued run, or ""."""

    def __init__(self, active_run: str) -> None:
        super().__init__()
        self.active_run = active_run


class RunsChanged(Message):
    """The list of runs or its order has changed."""


class RunChanged(Message):
    """A run has changed.

    `before` is its previous state, or None if the run is new. `is_next` is True if the run has just started while the
    run in view is not training; the panes then switch to the new run.
    """

    def __init__(self, run: RunSummary, before: RunSummary | None, is_next: bool) -> None:
        super().__init__()
        self.run, self.before, self.is_next = run, before, is_next


class RunReported(Message):
    """A run has reported progress."""

    def __init__(self, report: RunReport) -> None:
        super().__init__()
        self.report = report


class RunStaged(Message):
    """Loading the model of a run has reached another stage."""

    def __init__(self, run: RunSummary) -> None:
        super().__init__()
        self.run = run


class RunSubmitted(Message):
    """The worker has accepted a run submitted here. `is_next` is True if the followed run is not training."""

    def __init__(self, run: str, is_next: bool) -> None:
        super().__init__()
        self.run, self.is_next = run, is_next


class DevicesChanged(Message):
    """The list of devices, or the state of the device that trains, has changed."""


class PromptsChanged(Message):
    """The prompt history or the training settings have changed."""


class LibraryChanged(Message):
    """The library has changed.

    The cursor moves to `entry`, or stays where it is if that is "". `by_user` is True if a key caused the change.
    """

    def __init__(self, entry: str = "", by_user: bool = True) -> None:
        super().__init__()
        self.entry, self.by_user = entry, by_user


class MarksUsed(Message):
    """An action has used the marked entries, so their marks can be removed."""


class OpenEntryChanged(Message):
    """The open entry or its name has changed."""


class PortRequested(Message):
    """The user wants to train an entry again for another model."""

    def __init__(self, entry: str) -> None:
        super().__init__()
        self.entry = entry


class ShowEntryRequested(Message):
    """The loss, readout and details panes should show this entry."""

    def __init__(self, entry: str) -> None:
        super().__init__()
        self.entry = entry


class ShownEntryGone(Message):
    """The shown entry no longer exists. The entry under the library cursor replaces it."""

    def __init__(self, entry: str) -> None:
        super().__init__()
        self.entry = entry


class DetailChanged(Message):
    """The content of the loss, readout and details panes has changed.

    The main screen repaints all three panes soon, or `immediately`.
    """

    def __init__(self, immediately: bool = False) -> None:
        super().__init__()
        self.immediately = immediately


class ModelsChanged(Message):
    """The list of models, a pull or the notice about them has changed."""


class SweepReady(Message):
    """The worker has accepted a sweep, so its screen can open."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.run = run


class SweepChanged(Message):
    """The content of the sweep screen has changed."""


class PromptLoaded(Message):
    """A prompt and its settings have been loaded for the prompt pane."""

    def __init__(self, prompt: str, fields: dict[str, str]) -> None:
        super().__init__()
        self.prompt, self.fields = prompt, fields


class CompositionTextAdded(Message):
    """`text` should be added to the composition."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
