"""Hard readouts: whether there is one of what is shown, how far the search for one is, and asking for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from softprompt.errors import BadName, PromptError, SoftPromptError
from softprompt_tui.rendering.details import READY_SOON, round_words
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.state.queue import told
from softprompt_tui.widgets.readout import HardReadoutView

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob, HardReadoutJob
    from softprompt.library.entry import Entry
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext

ASK = "not looked for yet: x looks for it"
COMES = "is looked for when the training is done"
LATER = "can be looked for when the training is done"
PAUSED = "paused: p in runs goes on with it"

HandIn = Callable[["AnyJob"], Awaitable["RunSummary"]]


class HardReadoutController:
    """What the readout pane says of hard readouts, and what its keys do. `hand_in` is that of the runs."""

    def __init__(self, context: AppContext, hand_in: HandIn) -> None:
        self.context, self.hand_in = context, hand_in

    def of_entry(self, entry: Entry) -> HardReadoutView:
        """What is known of its hard readout: the search under way, what was found, or why there is none."""
        kept, run = entry.prompt.hard, self.context.runs.search_for(entry.id)
        if run and run.state in ("queued", "running", "paused"):
            if run.state == "queued":
                words = told(run, self.context.runs.in_order())
            else:
                words = (
                    PAUSED if run.state == "paused" else round_words(run.step, run.steps) if run.step else READY_SOON
                )
            if run.text or kept is None:
                return HardReadoutView(run.text or "", run.similarity if run.text else None, words)
            return HardReadoutView(kept.text, kept.similarity, f"another one: {words}")
        if kept is not None:
            return HardReadoutView(
                kept.text, kept.similarity, "" if kept.composed is None else f"composed {kept.composed:.4f}"
            )
        if run and run.state == "failed":
            return HardReadoutView(words=f"failed: {run.error}; x tries again")
        return HardReadoutView(words=_why_not(entry) or ASK)

    def of_run(self, run: RunSummary) -> HardReadoutView:
        """That of a training under way, which may look for one itself at its end."""
        if run.hard_step:
            return HardReadoutView(run.text or "", run.hard_similarity, round_words(run.hard_step, run.hard_steps))
        return HardReadoutView(words=COMES if run.hard else LATER)

    # what is asked

    def look_for(self, entry: str, device: str) -> None:
        """Hands the search to the worker; what comes of it is another revision of the entry."""
        self.context.spawn(partial(self._look_for, entry, device), group="requests")

    async def _look_for(self, entry: str, device: str) -> None:
        run = self.context.runs.search_for(entry)
        if run and run.state in ("queued", "running"):
            self.context.show_status("it is being looked for already")
            return
        try:
            found = await asyncio.to_thread(self.context.library.open, entry)
            await self.hand_in(_job(found, self.context.settings.more, device or "auto"))
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
        else:
            self.context.show_status(f"a hard readout of {found.prompt.name} is looked for")

    async def copy_of(self, entry: str) -> None:
        """Puts the text of an entry's hard readout on the terminal's clipboard."""
        try:
            found = await asyncio.to_thread(self.context.library.open, entry)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
            return
        self.copy(found.prompt.hard.text if found.prompt.hard else "")

    def copy(self, text: str) -> None:
        if not text:
            self.context.show_status("there is no hard readout to copy: x looks for one")
            return
        self.context.spawn(partial(self._copy, text), group="copying")

    async def _copy(self, text: str) -> None:
        self.context.show_status(f"{text} {await self.context.copy(sanitize(text))}")


def _job(entry: Entry, more: dict[str, str], device: str) -> HardReadoutJob:
    """Raises ConfigError, PromptError."""
    from softprompt.jobs.job import hard_readout_job
    from softprompt.library.names import check_name
    from softprompt_tui.services.job_form import hard_of

    made = entry.prompt
    if why := _why_not(entry):
        raise PromptError(f"a hard readout of {made.name} cannot be looked for: {why}")
    try:
        name = check_name(made.name)
    except BadName:  # a file's own
        name = ""
    hard = hard_of(more, seed=entry.revision - 1)  # with the same seed another search would come to the same text
    return replace(
        hard_readout_job(entry, hard, device), name=name, precision=made.device.rpartition(", ")[2] or "float32"
    )


def _why_not(entry: Entry) -> str:
    if not entry.prompt.hard_prompt:
        return "what it means is not known"
    return "" if entry.prompt.model else "its model is not known"
