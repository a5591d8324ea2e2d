"""The runs: apply the worker's messages to the store, and send requests to the worker."""

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
    ConnectionChanged,
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
from softprompt_tui.services.worker import ConnectionState, RunDropped, RunsReply, WorkerMessage
from softprompt_tui.state.runs import ACTIVE_STATES

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob, TrainJob
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.state.settings import Form


class RunsController:
    """Keeps the store of runs up to date, and sends requests to the worker.

    `followed` returns the id of the run on the screen, or "".
    """

    def __init__(self, context: AppContext, followed: Callable[[], str]) -> None:
        self.context, self.store, self.followed = context, context.runs, followed
        self._arrived = asyncio.Event()

    # messages from the worker

    def on_worker_message(self, message: WorkerMessage) -> None:
        store, post = self.store, self.context.post
        match message:
            case ConnectionState(state, reason):
                post(ConnectionChanged(state, reason))
            case RunsReply(runs, is_first, has_more):
                if is_first:
                    store.begin_list()
                store.add_page(runs, has_more)
                post(
                    RunsListed(next((run.id for run in runs if run.state in ACTIVE_STATES), ""))
                    if is_first
                    else RunsChanged()
                )
            case RunSummary():
                self._update_run(message)
            case RunReport() if store.apply_report(message):
                post(RunReported(message))
            case RunDropped(run):
                store.drop(run)
                post(RunsChanged())

    def _update_run(self, run: RunSummary) -> None:
        before = self.store.by_id.get(run.id)
        has_started = run.state == "running" and (before is None or before.state != "running")
        updated = self.store.update(run)
        self.context.post(RunChanged(updated, before, has_started and not self.store.is_training(self.followed())))

    # requests to the worker

    async def train(self, form: Form) -> None:
        """Submit the prompt in the editor to the worker."""
        from softprompt_tui.services.job_form import job_from_form  # takes 30 ms, so not before the first paint

        try:
            await self.submit(job_from_form(form, self.context.settings.more), form.prompt)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")

    async def submit(self, job: AnyJob, prompt: str) -> str:
        """Submit a job for the prompt in the editor and add the prompt to the history.

        Returns:
            The id of the run.

        Raises:
            SoftPromptError: the job was not accepted.
        """
        settings = self.context.settings
        run = await self.submit_job(job)
        self._warn_about_syntax(prompt)
        settings.more.pop("name", None)  # a name is for one entry only
        settings.add_to_history(prompt)
        self.context.post(PromptsChanged())
        return run.id

    def _warn_about_syntax(self, prompt: str) -> None:
        """Warn once per prompt about image-program syntax in it."""
        from softprompt.jobs.parsing import YES_WORDS
        from softprompt.prompts.syntax import describe_syntax
        from softprompt_tui.services.job_form import prepare_typed_prompt

        settings = self.context.settings
        kinds = prepare_typed_prompt(prompt, settings.more).kinds
        if kinds and prompt not in settings.prompts:
            is_plain = settings.more.get("plain", "").lower() in YES_WORDS
            self.context.show_status(describe_syntax(kinds, is_plain, "plain: yes in the settings (F8)"), "warning")

    async def submit_job(self, job: AnyJob) -> RunSummary:
        """Submit a job to the worker, after checking that it fits its model.

        Raises:
            SoftPromptError: the job does not fit, or the worker refused it.
        """
        from softprompt.jobs.preflight import check_fits

        store = self.store
        store.pending_submits += 1
        self._arrived.clear()
        try:
            await asyncio.to_thread(check_fits, job)  # the first call takes 0.1 s to load CLIP's vocabulary
            run = await self.context.worker.submit(job)
            store.started_here.add(run.id)
        finally:
            store.pending_submits -= 1
            if not store.pending_submits:
                self._arrived.set()
        if run.id not in store.by_id:  # otherwise a newer message about it was read before this reply
            self._update_run(run)
        self.context.post(RunSubmitted(run.id, not self.store.is_training(self.followed())))
        return run

    async def wait_for_submits(self) -> None:
        """Wait until the worker has accepted or refused every submitted job."""
        while self.store.pending_submits:
            await self._arrived.wait()

    async def train_composition(self, composition: str, form: Form, opened: str) -> None:
        """Ask for a name, then train a soft prompt for the composition with the settings of the prompt pane."""
        from softprompt.jobs.preflight import check_fits

        context = self.context
        try:
            job = await asyncio.to_thread(self._composition_job, composition, form, opened)
            await asyncio.to_thread(check_fits, job)  # before the user types a name
            question, name = "Name of the soft prompt to train for the composition", ""
            while True:
                typed = await context.ask(AskText(question, name))
                if not typed:
                    return
                try:
                    name = await asyncio.to_thread(context.library.check_new_name, typed)
                    break
                except BadName as error:  # ask again, with the typed name
                    question, name = sanitize(str(error)), typed
            await self.submit_job(replace(job, name=name))
            context.show_status(f"{name} was added to the worker's queue")
        except SoftPromptError as error:
            context.show_status(str(error), "error")

    def _composition_job(self, composition: str, form: Form, opened: str) -> TrainJob:
        """Return the training job for a composition.

        Raises:
            SoftPromptError: the composition cannot be trained.
        """
        from softprompt.composition.sentence import parse_prompt
        from softprompt.jobs.job import job_from_composition
        from softprompt_tui.services.job_form import job_from_form

        library = self.context.library
        sentence = parse_prompt(composition, library.open, library.open(opened) if opened else None)
        if not sentence.words:
            raise PromptError(
                "the composition contains no soft prompt. Add one as [name]; to train the prompt above, press ctrl+t."
            )
        template = job_from_form(form._replace(prompt=composition), self.context.settings.more | {"name": ""})
        return job_from_composition(
            sentence,
            config=template.config,
            model=template.model,
            device=template.device,
            precision=template.precision,
            hard=template.hard,
        )

    def act(self, action: OnRun, run_id: str) -> None:
        """Send the request for an action on a run."""
        run = self.store.by_id.get(run_id)
        if run is None:
            return
        match action:
            case OnRun.STOP:
                self._send_later(p.Stop(run_id))
            case OnRun.PAUSE:
                self._send_later(p.Resume(run_id) if run.state == "paused" else p.Pause(run_id))
            case OnRun.RETRY:
                self._send_later(p.Resume(run_id))
            case OnRun.DROP if run.step and run.state in ("paused", "failed"):
                self.context.spawn(partial(self._drop, run), group="dialogs")
            case OnRun.DROP:
                self._send_later(p.Drop(run_id))
            case OnRun.UP | OnRun.DOWN:
                self._move(run_id, -1 if action is OnRun.UP else 1)

    async def _drop(self, run: RunSummary) -> None:
        question = f"{sanitize(run.display_name)} is at step {run.step}. Dropping it discards this progress."
        if await self.context.ask(AskKey(question, [("d", "drop it anyway")])) == "d":
            await self._send(p.Drop(run.id))

    async def stop(self, runs: list[str]) -> list[str]:
        """Stop running and queued runs. A run that is training saves its best state so far.

        Returns:
            One message per run that could not be stopped.
        """
        refused = []
        for run in runs:
            try:
                await self.context.worker.ask(p.Stop(run), timeout=10)
            except SoftPromptError as error:
                now = self.store.by_id.get(run)
                if now and now.state in ACTIVE_STATES:  # otherwise it has ended by itself
                    refused.append(f"{now.display_name} was not stopped: {error}")
        return refused

    def _move(self, run_id: str, offset: int) -> None:
        waiting = [run.id for run in self.store.sorted_runs() if run.state in ("queued", "paused")]
        if run_id in waiting and 0 <= (index := waiting.index(run_id) + offset) < len(waiting):
            before = waiting[index] if offset < 0 else waiting[index + 1] if index + 1 < len(waiting) else ""
            self._send_later(p.Move(run_id, before))

    def _send_later(self, request: p.Request) -> None:
        self.context.spawn(partial(self._send, request), group="requests")

    async def _send(self, request: p.Request) -> None:
        try:
            await self.context.worker.ask(request)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
