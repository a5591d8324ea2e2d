"""Hard readouts: show the text or the progress of the search, start a search, and copy the text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from softprompt.errors import BadName, PromptError, SoftPromptError
from softprompt_tui.rendering.details import PREPARING_SEARCH, describe_round
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.queue import describe_wait
from softprompt_tui.widgets.readout import HardReadoutView

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob, HardReadoutJob
    from softprompt.library.entry import Entry
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext

NOT_SEARCHED = "none yet: x searches for one"
IN_TRASH = "none: R restores the soft prompt first"
AT_THE_END = "starts after training"
AFTER_TRAINING = "available after training"
PAUSED = "paused: p in runs resumes it"

SubmitJob = Callable[["AnyJob"], Awaitable["RunSummary"]]


class HardReadoutController:
    """The hard readout in the readout pane, and its keys."""

    def __init__(self, context: AppContext, submit_job: SubmitJob) -> None:
        self.context, self.submit_job = context, submit_job

    def view_of_entry(self, entry: Entry, is_trashed: bool = False) -> HardReadoutView:
        """Return the hard readout of an entry, the progress of its search, or the reason why there is none."""
        view = self._describe(entry, is_trashed)
        return view._replace(can_search=can_search(entry) and not is_trashed)

    def _describe(self, entry: Entry, is_trashed: bool) -> HardReadoutView:
        hard, run = entry.prompt.hard, self.context.runs.latest_search(entry.id)
        if run and run.state in ("queued", "running", "paused"):
            if run.state == "queued":
                status = describe_wait(run, self.context.runs.sorted_runs())
            else:
                status = (
                    PAUSED
                    if run.state == "paused"
                    else describe_round(run.step, run.steps)
                    if run.step
                    else PREPARING_SEARCH
                )
            if run.text or hard is None:
                return HardReadoutView(run.text or "", run.similarity if run.text else None, status)
            return HardReadoutView(hard.text, hard.similarity, f"new search: {status}")
        if hard is not None:
            return HardReadoutView(
                hard.text, hard.similarity, "" if hard.composed is None else f"composed {format_number(hard.composed)}"
            )
        if is_trashed:
            return HardReadoutView(status=IN_TRASH)
        if run and run.state == "failed":
            return HardReadoutView(status=f"failed: {run.error}; x tries again")
        return HardReadoutView(status=_why_impossible(entry) or NOT_SEARCHED)

    def view_of_run(self, run: RunSummary) -> HardReadoutView:
        """Return the hard readout of a run that is training. The run may search for one at its end."""
        if run.hard_step:
            return HardReadoutView(run.text or "", run.hard_similarity, describe_round(run.hard_step, run.hard_steps))
        return HardReadoutView(status=AT_THE_END if run.hard else AFTER_TRAINING)

    # actions

    def search(self, entry: str, device: str) -> None:
        """Submit a search to the worker. Its result becomes a new revision of the entry."""
        self.context.spawn(partial(self._search, entry, device), group="requests")

    async def _search(self, entry: str, device: str) -> None:
        run = self.context.runs.latest_search(entry)
        if run and run.state in ("queued", "running"):
            self.context.show_status("a search for this hard readout has already started")
            return
        try:
            opened = await asyncio.to_thread(self.context.library.open, entry)
            await self.submit_job(_hard_readout_job(opened, self.context.settings.more, device or "auto"))
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
        else:
            name = opened.prompt.name
            self.context.show_status(f"searching for a hard readout of {name}", name=name)

    async def copy_from_entry(self, entry: str) -> None:
        """Copy the text of an entry's hard readout."""
        try:
            opened = await asyncio.to_thread(self.context.library.open, entry)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
            return
        self.copy(opened.prompt.hard.text if opened.prompt.hard else "")

    def copy(self, text: str) -> None:
        if not text:
            self.context.show_status("there is no hard readout to copy: x searches for one")
            return
        self.context.spawn(partial(self._copy, text), group="copying")

    async def _copy(self, text: str) -> None:
        self.context.show_status(f"{text} {await self.context.copy(sanitize(text))}", name=text)


def _hard_readout_job(entry: Entry, more: dict[str, str], device: str) -> HardReadoutJob:
    """Return the job that searches for the hard readout of an entry.

    Raises:
        ConfigError: a setting is wrong.
        PromptError: the prompt or the model of the entry is unknown.
    """
    from softprompt.jobs.job import hard_readout_job
    from softprompt.library.names import check_name
    from softprompt_tui.services.job_form import hard_config_from_fields

    prompt = entry.prompt
    if reason := _why_impossible(entry):
        raise PromptError(f"cannot search for a hard readout of {prompt.name}: {reason}")
    try:
        name = check_name(prompt.name)
    except BadName:  # imported names may break the rules
        name = ""
    hard = hard_config_from_fields(more, seed=entry.revision - 1)  # the same seed would give the same text again
    return replace(
        hard_readout_job(entry, hard, device), name=name, precision=prompt.device.rpartition(", ")[2] or "float32"
    )


def can_search(entry: Entry) -> bool:
    return not _why_impossible(entry)


def _why_impossible(entry: Entry) -> str:
    if entry.prompt.is_for_language_model:
        return "it is for a language model"
    if not entry.prompt.hard_prompt:
        return "its hard prompt is unknown"
    return "" if entry.prompt.model else "its model is unknown"
