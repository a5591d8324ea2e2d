"""What the worker says of its runs, and what is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from softprompt.errors import BadName, PromptError, SoftPromptError
from softprompt.worker import protocol as p
from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.messages import (
    LinkChanged,
    OnRun,
    PromptsChanged,
    RunChanged,
    RunReported,
    RunsChanged,
    RunsListed,
    RunSubmitted,
)
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.dialogs import AskKey, AskText
from softprompt_tui.services.worker import Dropped, Link, News, RunsReply
from softprompt_tui.state.runs import GOING

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob, TrainJob
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.state.settings import Form


class RunsController:
    """Keeps the store of runs as the worker tells it, and asks the worker for more. `followed` is the run that is shown, or ""."""

    def __init__(self, context: AppContext, followed: Callable[[], str]) -> None:
        self.context, self.store, self.followed = context, context.runs, followed
        self._arrived = asyncio.Event()

    # what the worker says

    def on_worker_message(self, news: News) -> None:
        store, post = self.store, self.context.post
        match news:
            case Link(state, why):
                post(LinkChanged(state, why))
            case RunsReply(runs, first, more):
                if first:
                    store.begin_list()
                store.take_page(runs, more)
                post(RunsListed(next((run.id for run in runs if run.state in GOING), "")) if first else RunsChanged())
            case RunSummary():
                self._know(news)
            case RunReport() if store.take_report(news):
                post(RunReported(news))
            case Dropped(run):
                store.drop(run)
                post(RunsChanged())

    def _know(self, run: RunSummary) -> None:
        before = self.store.known.get(run.id)
        begins = run.state == "running" and (before is None or before.state != "running")
        known = self.store.know(run)
        self.context.post(RunChanged(known, before, begins and not self.store.is_training(self.followed())))

    # what is asked

    async def train(self, form: Form) -> None:
        """Hands the prompt in the editor to the worker."""
        from softprompt_tui.services.job_form import (
            job_from_form,  # what is needed for a job only costs the first paint 30 ms
        )

        try:
            await self.submit(job_from_form(form, self.context.settings.more), form.prompt)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")

    async def submit(self, job: AnyJob, prompt: str) -> str:
        """Hands the worker what is to be made of the prompt in the editor; the run's id. Raises SoftPromptError."""
        settings = self.context.settings
        run = await self.submit_job(job)
        self._say_syntax(prompt)
        settings.more.pop("name", None)  # a name is for one
        settings.remember(prompt)
        self.context.post(PromptsChanged())
        return run.id

    def _say_syntax(self, prompt: str) -> None:
        """Say once of a prompt that it has what image programs read as syntax."""
        from softprompt.jobs.parsing import YES
        from softprompt.prompts.syntax import describe_syntax
        from softprompt_tui.services.job_form import typed_prompt

        settings = self.context.settings
        kinds = typed_prompt(prompt, settings.more).kinds
        if kinds and prompt not in settings.prompts:
            is_plain = settings.more.get("plain", "").lower() in YES
            self.context.show_status(describe_syntax(kinds, is_plain, "plain: yes in the settings (F8)"), "warning")

    async def submit_job(self, job: AnyJob) -> RunSummary:
        """Gives the worker a job, unless its model would refuse it when its turn comes; the run. Raises SoftPromptError."""
        from softprompt.jobs.preflight import check_fits

        store = self.store
        store.on_their_way += 1
        self._arrived.clear()
        try:
            await asyncio.to_thread(check_fits, job)  # the first time 0.1 s, for CLIP's vocabulary
            run = await self.context.worker.submit(job)
            store.ours.add(run.id)
        finally:
            store.on_their_way -= 1
            if not store.on_their_way:
                self._arrived.set()
        if run.id not in store.known:  # what the worker said of it since, before this answer was read, is newer
            self._know(run)
        self.context.post(RunSubmitted(run.id, not self.store.is_training(self.followed())))
        return run

    async def all_handed_in(self) -> None:
        """Waits until the worker has all that was asked for, or has refused it."""
        while self.store.on_their_way:
            await self._arrived.wait()

    async def train_composition(self, composition: str, form: Form, opened: str) -> None:
        """Ask for a name, then let the worker train a soft prompt for the composition, with the settings beside the prompt."""
        from softprompt.jobs.preflight import check_fits

        context = self.context
        try:
            job = await asyncio.to_thread(self._job_of_composition, composition, form, opened)
            await asyncio.to_thread(check_fits, job)  # before a name is asked for
            question, name = "A soft prompt that means all of it is trained; its name", ""
            while True:
                typed = await context.ask(AskText(question, name))
                if not typed:
                    return
                try:
                    name = await asyncio.to_thread(context.library.free_name, typed)
                    break
                except BadName as error:  # asked again, with what was typed
                    question, name = sanitize(str(error)), typed
            await self.submit_job(replace(job, name=name))
            context.show_status(f"{name} is handed to the worker")
        except SoftPromptError as error:
            context.show_status(str(error), "error")

    def _job_of_composition(self, composition: str, form: Form, opened: str) -> TrainJob:
        """Raises SoftPromptError for what cannot be trained."""
        from softprompt.composition.sentence import read_sentence
        from softprompt.jobs.job import job_from_composition
        from softprompt_tui.services.job_form import job_from_form

        library = self.context.library
        sentence = read_sentence(composition, library.open, library.open(opened) if opened else None)
        if not sentence.words:
            raise PromptError(
                "there is no soft prompt in the composition: [name] is one; ctrl+t trains what stands in the prompt"
            )
        usual = job_from_form(form._replace(prompt=composition), self.context.settings.more | {"name": ""})
        return job_from_composition(
            sentence,
            config=usual.config,
            model=usual.model,
            device=usual.device,
            precision=usual.precision,
            hard=usual.hard,
        )

    def act(self, action: OnRun, run_id: str) -> None:
        """Ask the worker to do something with a run."""
        run = self.store.known.get(run_id)
        if run is None:
            return
        match action:
            case OnRun.STOP:
                self._ask(p.Stop(run_id))
            case OnRun.PAUSE:
                self._ask(p.Resume(run_id) if run.state == "paused" else p.Pause(run_id))
            case OnRun.RETRY:
                self._ask(p.Resume(run_id))
            case OnRun.DROP if run.step and run.state in ("paused", "failed"):
                self.context.spawn(partial(self._drop, run), group="dialogs")
            case OnRun.DROP:
                self._ask(p.Drop(run_id))
            case OnRun.UP | OnRun.DOWN:
                self._move(run_id, -1 if action is OnRun.UP else 1)

    async def _drop(self, run: RunSummary) -> None:
        what = f"{sanitize(run.called)} has come to step {run.step}, and nothing of it is saved."
        if await self.context.ask(AskKey(what, [("d", "drop it all the same")])) == "d":
            await self._asked(p.Drop(run.id))

    async def stop(self, runs: list[str]) -> list[str]:
        """Ends what trains of them, with the best so far saved, and what waits; says what could not be stopped, and why."""
        refused = []
        for run in runs:
            try:
                await self.context.worker.ask(p.Stop(run), within=10)
            except SoftPromptError as error:
                now = self.store.known.get(run)
                if now and now.state in GOING:  # else it was over meanwhile
                    refused.append(f"{now.called} is not stopped: {error}")
        return refused

    def _move(self, run: str, way: int) -> None:
        waiting = [one.id for one in self.store.in_order() if one.state in ("queued", "paused")]
        if run in waiting and 0 <= (at := waiting.index(run) + way) < len(waiting):
            before = waiting[at] if way < 0 else waiting[at + 1] if at + 1 < len(waiting) else ""
            self._ask(p.Move(run, before))

    def _ask(self, request: p.Request) -> None:
        self.context.spawn(partial(self._asked, request), group="requests")

    async def _asked(self, request: p.Request) -> None:
        try:
            await self.context.worker.ask(request)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
