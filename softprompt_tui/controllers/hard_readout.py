"""Hard readouts: whether there is one of what is shown, how far the search for one is, and asking for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from softprompt.errors import BadName, PromptError, SoftPromptError
from softprompt.jobs.job import HardReadoutJob, hard_job
from softprompt.library.names import check_name
from softprompt_tui.rendering.sanitize import inert
from softprompt_tui.services.clipboard import copy
from softprompt_tui.services.job_form import hard_of
from softprompt_tui.widgets.readout import HardShown

if TYPE_CHECKING:
    from softprompt.library.entry import Entry
    from softprompt_tui.app import SoftPromptApp

ASK = "not looked for yet: x looks for it"
COMES = "is looked for when the training is done"
LATER = "can be looked for when the training is done"
READY_SOON = "getting ready: the model, and which tokens can be typed"
PAUSED = "paused: p in runs goes on with it"


class Hard:
    """What the readout pane says of hard readouts, and what its keys do."""

    def __init__(self, app: SoftPromptApp) -> None:
        self.app = app

    def of_entry(self, entry: Entry) -> HardShown:
        """What is known of its hard readout: the search under way, what was found, or why there is none."""
        kept, run = entry.prompt.hard, self._run(entry.id)
        if run and run["state"] in ("queued", "running", "paused"):
            words = PAUSED if run["state"] == "paused" else self.app.runs.waits(run) if run["state"] == "queued" else ""
            words = words or (_round(run["step"], run["steps"]) if run["step"] else READY_SOON)
            if run.get("text") or kept is None:
                return HardShown(run.get("text") or "", run["similarity"] if run.get("text") else None, words)
            return HardShown(kept.text, kept.similarity, f"another one: {words}")
        if kept is not None:
            return HardShown(kept.text, kept.similarity, "" if kept.composed is None else f"composed {kept.composed:.4f}")
        if run and run["state"] == "failed":
            return HardShown(words=f"failed: {run['error']}; x tries again")
        return HardShown(words=_why_not(entry) or ASK)

    def of_run(self, run: dict[str, Any]) -> HardShown:
        """That of a training under way, which may look for one itself at its end."""
        if run.get("hard_step"):
            return HardShown(run.get("text") or "", run.get("hard_similarity"), _round(run["hard_step"], run["hard_steps"]))
        return HardShown(words=COMES if run.get("hard") else LATER)

    def _run(self, entry: str) -> dict[str, Any] | None:
        """The last run that looked for one."""
        runs = [run for run in self.app.runs.known.values() if run.get("of_entry") == entry]
        return max(runs, key=lambda run: (run["created"], run["position"]), default=None)

    # what is asked

    async def look_for_shown(self) -> None:
        shown = self.app.shown
        if shown.entry_id:
            await self.look_for(shown.entry_id)
        elif shown.run:
            self.app.say(f"a hard readout {LATER}")
        else:
            self.app.say("nothing is shown that a hard readout could be looked for")

    async def look_for(self, entry: str) -> None:
        """Hands the search to the worker; what comes of it is another revision of the entry."""
        run = self._run(entry)
        if run and run["state"] in ("queued", "running"):
            self.app.say("it is being looked for already")
            return
        try:
            found = await asyncio.to_thread(self.app.library.open, entry)
            job = _job(found, self.app.settings.more, self.app.prompt_pane.fields["device"] or "auto")
            self.app.runs.submitted(await self.app.runs.hand_in(job))
        except SoftPromptError as error:
            self.app.say(str(error), "error")
        else:
            self.app.say(f"a hard readout of {found.prompt.name} is looked for")

    async def copy_of(self, entry: str) -> None:
        """Puts the text of an entry's hard readout on the terminal's clipboard."""
        try:
            found = await asyncio.to_thread(self.app.library.open, entry)
        except SoftPromptError as error:
            self.app.say(str(error), "error")
            return
        self.copy(found.prompt.hard.text if found.prompt.hard else "")

    def copy_shown(self) -> None:
        """Copies what the pane shows, be it the best so far of a search under way."""
        shown, read = self.app.shown, self.app.shown.read
        if shown.entry and (read is None or read.id != shown.entry):  # the cursor has only just come to it
            self.app.begin(partial(self.copy_of, shown.entry), group="entries")
            return
        hard = self.app.readout.hard
        self.copy(hard.text if hard else "")

    def copy(self, text: str) -> None:
        if not text:
            self.app.say("there is no hard readout to copy: x looks for one")
            return
        self.app.begin(partial(self._copy, text), group="copying")

    async def _copy(self, text: str) -> None:
        self.app.say(f"{text} {await copy(self.app, inert(text))}")


def round_of(run: dict[str, Any]) -> str:
    """How far the search at the end of a training is, in words; "" where there is none."""
    return f"hard readout: {_round(run['hard_step'], run['hard_steps'])}" if run.get("hard_step") else ""


def _round(step: int, steps: int) -> str:
    return f"round {step} of {steps}"


def _job(entry: Entry, more: dict[str, str], device: str) -> HardReadoutJob:
    """Raises ConfigError, PromptError."""
    made = entry.prompt
    if why := _why_not(entry):
        raise PromptError(f"a hard readout of {made.name} cannot be looked for: {why}")
    try:
        name = check_name(made.name)
    except BadName:  # a file's own
        name = ""
    hard = hard_of(more, seed=entry.revision - 1)  # with the same seed another search would come to the same text
    return replace(hard_job(entry, hard, device), name=name, precision=made.device.rpartition(", ")[2] or "float32")


def _why_not(entry: Entry) -> str:
    if not entry.prompt.hard_prompt:
        return "what it means is not known"
    return "" if entry.prompt.model else "its model is not known"
