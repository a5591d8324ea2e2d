"""Describe a failed run: how far it got, why it failed, and what the user can do in the loss pane."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from softprompt.errors import shorten
from softprompt.worker.hub_variables import ADVICE
from softprompt_tui.rendering.grid import label_grid
from softprompt_tui.rendering.sanitize import sanitize

if TYPE_CHECKING:
    from softprompt.worker.summary import RunSummary

# the types of errors that only loading a model and picking its device raise
LOADING_ERRORS = ("ModelUnavailable", "ModelRefused", "UnknownModel", "DeviceError")
STORAGE_ERRORS = ("LibraryError", "HomeError", "EntryRefused", "EntryDamaged")
SETTINGS_ERRORS = ("PromptError", "PromptTooLong", "ConfigError", "TemplateError")
LOCAL_PREFIX, MINI = "local-dir:", "mini"
MIN_TITLE_PROMPT = 12  # characters of the prompt in a title line; one with less room has no prompt
# of errors whose first words may be long
BRIEF_REASONS = {
    "ModelUnavailable": "model not available",
    "ModelRefused": "model refused",
    "UnknownModel": "unknown model",
    "DeviceError": "device not usable",
    "PromptTooLong": "prompt too long",
    "EntryNotFound": "soft prompt deleted",
}
MAX_BRIEF_LENGTH = 40  # characters
_END_OF_CLAUSE = re.compile(r"[:;.] | \(|\.$")

Advice = tuple[str, str]  # a key of the loss pane or of the main screen, and what it does


class Failure(NamedTuple):
    """A failed run as the loss pane shows it.

    `more` is the rest of the error, after its first sentence. `note` comes before the advice, and may be "".
    """

    run: str
    headline: str
    reason: str
    more: str
    advice: tuple[Advice, ...]
    ended: str
    note: str = ""


def describe_failure(run: RunSummary, has_other_variables: bool = False) -> Failure:
    """Describe a failed run. The advice depends on the type of the error, which an older worker does not send.

    Args:
        has_other_variables: the worker's Hugging Face variables differ from those of the interface.
    """
    reason, stop, more = run.error.partition(". ")
    reason = f"{reason}{stop.strip()}" or "No reason was given."
    note = f"{ADVICE[0].upper()}{ADVICE[1:]}." if has_other_variables and _is_from_hub(run) else ""
    return Failure(run.id, _headline(run), reason, more, _advice(run), _time_of_day(run.ended), note)


def brief_reason(run: RunSummary) -> str:
    """Return why a run failed in a few words, for where the loss pane says the rest."""
    return BRIEF_REASONS.get(run.error_kind) or shorten(_END_OF_CLAUSE.split(run.error)[0], MAX_BRIEF_LENGTH)


def failure_title(run: RunSummary, room: int) -> str:
    """Return the failed run for a title line with so many cells: its id, the start of its prompt, a brief reason."""
    state, reason = f"failed {run.id[:6]}", brief_reason(run)
    room -= len(f"{state} ·  · {reason}")
    name = shorten(run.title, room) if room >= MIN_TITLE_PROMPT else ""
    return " · ".join(filter(None, (state, name, reason)))


def render_failure(failure: Failure, has_focus: bool, is_compact: bool) -> RenderableType:
    """Render a failure. The advice comes before the details, which may be long.

    The keys work only while the pane has the focus; F3 moves the focus there. `is_compact` leaves out empty lines.
    """
    keys = "What you can do:" if has_focus else "What you can do (F3 goes to this pane first):"
    gap = 0 if is_compact else 1
    parts: list[RenderableType] = [
        Text(failure.headline, "bold"),
        Padding(Text(sanitize(failure.reason)), (gap, 0, gap, 2)),
        *[Padding(Text(failure.note, "bold"), (0, 0, gap, 2))] * bool(failure.note),
        Text(keys),
        Padding(label_grid(failure.advice, "bold"), (0, 0, gap, 2)),
    ]
    return Group(*parts, *[Text(sanitize(failure.more), "dim")] * bool(failure.more))


def _headline(run: RunSummary) -> str:
    what = {"sweep": "The sweep", "hard": "The search for a hard readout"}.get(run.kind, "The run")
    unit = "round" if run.kind == "hard" else "step"
    saved = " The best so far is in the library." if run.entry and run.kind == "train" else ""
    if run.kind == "train" and run.hard and run.step and run.step == run.steps:
        return f"The run failed after all {run.steps} steps, in the search for its hard readout.{saved}"
    if not run.step:
        where = "while loading its model" if run.error_kind in LOADING_ERRORS else f"before its first {unit}"
        return f"{what} failed after 0 of {run.steps} {unit}s, {where}."
    return f"{what} failed after {run.step} of {run.steps} {unit}s.{saved}"


def _is_from_hub(run: RunSummary) -> bool:
    return not run.model.startswith(LOCAL_PREFIX) and run.model.lower() != MINI


def _advice(run: RunSummary) -> tuple[Advice, ...]:
    kind = run.error_kind
    again = ("r", "try again; resumes from the last checkpoint" if run.step and run.kind == "train" else "try again")
    model, device = ("m", "choose another model"), ("v", "choose another device")
    log = ("l", "show the worker's log")
    if kind == "ModelUnavailable":
        pull = (("ctrl+o", "pull or delete the model (opens the list)"),) if _is_from_hub(run) else ()
        return (again, *pull, model, log)
    if kind in ("ModelRefused", "UnknownModel"):
        return (model, log)
    if kind == "DeviceError":
        return (device, again, log)
    if kind == "TrainingFailed":  # the device failed, is full or was lost, or the loss became NaN
        return (again, ("F8", "change restarts, rate and precision"), device, log)
    if kind in SETTINGS_ERRORS:
        return (("e", "edit the prompt and its settings"), model, log)
    if kind in STORAGE_ERRORS:
        return (("r", f"{again[1]}, once the disk is writable and has free space"), log)
    if kind == "EntryNotFound":
        return (("F4 u", "restore the deleted entry"), again, log)
    return (again, log)


def _time_of_day(ended: str) -> str:
    try:
        return datetime.fromisoformat(ended).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return ""
