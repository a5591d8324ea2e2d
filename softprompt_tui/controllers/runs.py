"""The runs: apply the worker's messages to the store, and send requests to the worker."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from softprompt.errors import EntryDamaged, EntryNotFound, PromptError, RunNotFound, SoftPromptError, shorten
from softprompt.system.files import open_file
from softprompt.worker import protocol as p
from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.messages import (
    ConnectionChanged,
    LibraryChanged,
    OnRun,
    PromptsChanged,
    RunAction,
    RunChanged,
    RunReported,
    RunsChanged,
    RunsListed,
    RunStaged,
    RunSubmitted,
    ShowEntryRequested,
)
from softprompt_tui.rendering.download import describe_stage
from softprompt_tui.rendering.numbers import format_number
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.dialogs import AskKey, AskText, ask_until_accepted
from softprompt_tui.services.worker import ConnectionState, LoadingStage, RunDropped, RunsReply, WorkerMessage
from softprompt_tui.state.runs import ACTIVE_STATES

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob, TrainJob
    from softprompt.library import EntrySummary
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.state.settings import Form

LOG_LINES, LOG_BYTES, MAX_LOG_FILE_BYTES = 200, 1 << 16, 1 << 30  # how much of the worker's log is shown


UNFINISHED_STATES = ("running", "queued", "paused")
SLOW_SECONDS = 2.0  # a healthy worker takes longer only while it imports torch
SLOW = (
    "the worker has not answered yet. If it hangs, `softprompt-tui worker stop --force` ends it, and ctrl+r starts "
    "another. No run is lost."
)


class RunsController:
    """Keeps the store of runs up to date, and sends requests to the worker.

    `followed` returns the id of the run on the screen, or "".
    """

    def __init__(self, context: AppContext, followed: Callable[[], str]) -> None:
        self.context, self.store, self.followed = context, context.runs, followed
        self._arrived = asyncio.Event()
        self._train_lock = asyncio.Lock()
        self.dropped: list[RunSummary] = []  # runs dropped here that undo can bring back

    # messages from the worker

    def on_worker_message(self, message: WorkerMessage) -> None:
        store, post = self.store, self.context.post
        match message:
            case ConnectionState(state, reason):
                if state == "gone":
                    store.clear_stages()
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
            case LoadingStage(run_id, stage, received, of):
                if (run := store.set_stage(run_id, describe_stage(stage, received, of))) is not None:
                    post(RunStaged(run))
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
        """Submit the prompt in the editor to the worker. Ask first if the same training exists."""
        from softprompt_tui.services.job_form import job_from_form  # takes 30 ms, so not before the first paint

        async with self._train_lock:  # the key was pressed again: the first training must be known by then
            try:
                job = job_from_form(form, self.context.settings.more)
                self.context.worker.check("submitted")  # before a question
                with self._pending_submit():  # quitting must ask about it from now on
                    earlier = await self._find_earlier(job)
                if earlier is None:
                    await self.submit(job, form.prompt)
            except SoftPromptError as error:
                self.context.show_status(str(error), "error")
                return
        if earlier is not None:
            # in a group of its own: from here on, keys are meant for the question
            self.context.spawn(partial(self._ask_and_submit, job, form.prompt, earlier), group="dialogs")

    async def _ask_and_submit(self, job: TrainJob, prompt: str, earlier: RunSummary | EntrySummary) -> None:
        if await self._wants_to_repeat(earlier):
            await self.submit(job, prompt)

    async def _find_earlier(self, job: TrainJob) -> RunSummary | EntrySummary | None:
        """Return an unfinished run or a library entry with the same training, or None."""
        from softprompt.jobs.identity import find_trained_entry, is_same_model, training_digest

        digest, library = training_digest(job), self.context.library
        runs = [run for run in self.store.by_id.values() if digest and run.digest == digest]
        same = [run for run in runs if is_same_model(run.model, job.model)]
        for run in same:
            if run.state in UNFINISHED_STATES and not run.stopping:
                return run

        def find_entry() -> EntrySummary | None:
            for run in same:
                if run.state == "done" and run.entry:
                    with suppress(EntryNotFound, EntryDamaged):  # deleted since then
                        return library.find(run.entry)
            return find_trained_entry(library, job)

        return await asyncio.to_thread(find_entry)

    async def _wants_to_repeat(self, earlier: RunSummary | EntrySummary) -> bool:
        """Ask whether to train although the same training exists. Open the earlier one if the user prefers that."""
        answers = [("o", "open it"), ("t", "train it again anyway")]
        question = (
            f"The same training {_describe_earlier(earlier)}. Its prompt, model, settings and seed are the same. "
            "Another seed (F8) gives another soft prompt."
        )
        answer = await self.context.ask(AskKey(question, answers))
        if answer == "o" and isinstance(earlier, RunSummary):
            self.context.post(RunAction(OnRun.SHOW, earlier.id))
        elif answer == "o":
            self.context.post(LibraryChanged(earlier.id))
            self.context.post(ShowEntryRequested(earlier.id))
        return answer == "t"

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
        with self._pending_submit():
            await asyncio.to_thread(check_fits, job)  # the first call takes 0.1 s to load CLIP's vocabulary
            await self._wait_for_worker("submitted")
            with self._notice_if_slow():
                run = await self.context.worker.submit(job)
            store.started_here.add(run.id)
        if run.id not in store.by_id:  # otherwise a newer message about it was read before this reply
            self._update_run(run)
        self.context.post(RunSubmitted(run.id, not self.store.is_training(self.followed())))
        return run

    @contextmanager
    def _pending_submit(self) -> Iterator[None]:
        """Count a job as pending, so that quitting waits for it."""
        self.store.pending_submits += 1
        self._arrived.clear()
        try:
            yield
        finally:
            self.store.pending_submits -= 1
            if not self.store.pending_submits:
                self._arrived.set()

    async def _wait_for_worker(self, outcome: str) -> None:
        """Wait while the worker starts.

        Args:
            outcome: what then happens to the request, such as "submitted", for the messages.

        Raises:
            WorkerError: there is no worker.
        """
        worker = self.context.worker
        if worker.state == "starting" and not worker.is_connected:
            self.context.show_status(f"{outcome} as soon as the worker answers")
            await worker.wait_until_up()
        worker.check(outcome)

    @contextmanager
    def _notice_if_slow(self) -> Iterator[None]:
        """Tell the user if the worker does not answer soon."""
        notice = asyncio.get_running_loop().call_later(SLOW_SECONDS, self.context.show_status, SLOW, "warning")
        try:
            yield
        finally:
            notice.cancel()

    async def wait_for_submits(self) -> None:
        """Wait until the worker has accepted or refused every submitted job."""
        while self.store.pending_submits:
            await self._arrived.wait()

    async def port(self, entry_id: str, model: str, form: Form) -> None:
        """Train an entry again for another model, with its own settings, on the device of the prompt pane."""
        from softprompt.encoders.catalog import model_kind
        from softprompt.jobs.job import port_config, port_job

        library = self.context.library
        entry = await asyncio.to_thread(library.open, entry_id)
        name = await asyncio.to_thread(library.unique_name, entry.prompt.name)
        config = port_config(entry.prompt, model_kind(model))
        job = port_job(entry, model, config, name, form.fields["device"] or "auto")
        earlier = await self._find_earlier(job)
        if earlier is None or await self._wants_to_repeat(earlier):
            await self.submit_job(job)
            self.context.show_status(f"{name} was added to the worker's queue; it trains for {model}", name=name)

    async def train_composition(self, composition: str, form: Form, opened: str) -> None:
        """Ask for a name, then train a soft prompt for the composition with the settings of the prompt pane.

        The dialog starts with the name that `train` would derive, and an empty name means the same.
        """
        from softprompt.jobs.preflight import check_fits
        from softprompt.library.names import name_from_prompt

        context = self.context
        try:
            job = await asyncio.to_thread(self._composition_job, composition, form, opened)
            await asyncio.to_thread(check_fits, job)  # before the user types a name
            earlier = await self._find_earlier(job)
            if earlier is not None and not await self._wants_to_repeat(earlier):
                return

            suggested = await asyncio.to_thread(context.library.with_taken_names, partial(name_from_prompt, job.prompt))

            async def submit(typed: str) -> None:
                name = await asyncio.to_thread(context.library.check_new_name, typed.strip() or suggested)
                await self.submit_job(replace(job, name=name))
                context.show_status(f"{name} was added to the worker's queue", name=name)

            question = "Name of the soft prompt to train for the composition"
            await ask_until_accepted(
                context, lambda refused, reason: AskText(question, refused or suggested, reason), submit
            )
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
                self.context.spawn(partial(self._stop, run), group="requests")
            case OnRun.PAUSE:
                self._send_later(p.Resume(run_id) if run.state == "paused" else p.Pause(run_id))
            case OnRun.RETRY:
                self._send_later(p.Resume(run_id))
            case OnRun.DROP:
                self.context.spawn(partial(self._drop, run), group="requests")
            case OnRun.UP | OnRun.DOWN:
                self._move(run_id, -1 if action is OnRun.UP else 1)

    async def _drop(self, run: RunSummary) -> None:
        if await self._send(p.Drop(run.id)) is not None:
            self.dropped.append(run)
            self.context.show_status(f"dropped; u brings it back: {run.display_name}", name=run.display_name)

    def undo_drop(self) -> None:
        """Bring back the run that was dropped last in this interface."""
        self.context.spawn(self._undo_drop, group="requests")

    async def _undo_drop(self) -> None:
        if not self.dropped:
            self.context.show_status("nothing to undo; `softprompt-tui runs restore` restores runs dropped elsewhere")
            return
        run = self.dropped[-1]
        try:
            await self._ask(p.Restore(run.id))
        except RunNotFound as error:  # another terminal was faster, or it was dropped too long ago
            self.context.show_status(str(error), "warning")
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
            return
        else:
            self.context.show_status(f"back in the list: {run.display_name}", name=run.display_name)
        self.dropped.remove(run)

    async def _stop(self, run: RunSummary) -> None:
        if (reply := await self._send(p.Stop(run.id))) is not None:
            kept = "the best text so far" if run.kind == "hard" else "the best so far"
            if not reply.get("stopping"):
                self.context.show_status("stopped; there was nothing to keep yet")
            elif self.store.by_id.get(run.id, run).step:
                self.context.show_status(f"stopping; {kept} is kept")
            else:  # its model is loading
                self.context.show_status("stopping; there is nothing to keep yet")

    def show_log(self) -> None:
        """Show the end of the worker's log."""
        self.context.spawn(self._show_log, group="dialogs")

    async def _show_log(self) -> None:
        from softprompt.worker.log import log_path
        from softprompt_tui.screens.text_viewer import TextScreen

        path = log_path()
        text = await asyncio.to_thread(_read_end, path)
        self.context.show(TextScreen(f"The end of {sanitize(str(path))}:\n\n{text}", at_end=True))

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

    async def _send(self, request: p.Request) -> dict[str, Any] | None:
        """Return the worker's reply, or None after showing its error."""
        try:
            return await self._ask(request)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
            return None

    async def _ask(self, request: p.Request) -> dict[str, Any]:
        await self._wait_for_worker("sent")
        with self._notice_if_slow():
            return await self.context.worker.ask(request)


def _describe_earlier(earlier: RunSummary | EntrySummary) -> str:
    if isinstance(earlier, RunSummary):
        step = f" at step {earlier.step} of {earlier.steps}" if earlier.step else ""
        states = {"running": f"is running{step}", "paused": f"is paused{step}"}
        return states.get(earlier.state, "is waiting in the queue")
    similarity = "" if earlier.similarity is None else f", similarity {format_number(earlier.similarity)}"
    return f"is in the library: {sanitize(shorten(earlier.name))}{similarity}"


def _read_end(path: Path) -> str:
    """Return the last lines of a log, or why it cannot be read."""
    try:
        with open_file(str(path), MAX_LOG_FILE_BYTES) as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LOG_BYTES))
            lines = file.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError as error:
        return f"It cannot be read: {error.strerror}."
    return "\n".join(map(sanitize, lines[-LOG_LINES:])) or "It is empty."
