"""Token sweeps: train the prompt with many token counts at once, show the results, and save some of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

from softprompt.errors import EntryNotFound, SoftPromptError
from softprompt_tui.messages import LibraryChanged, SweepChanged, SweepReady
from softprompt_tui.rendering.numbers import format_duration
from softprompt_tui.rendering.sanitize import sanitize
from softprompt_tui.screens.dialogs import AskKey
from softprompt_tui.state.queue import describe_wait
from softprompt_tui.state.sweep_estimate import SweepEstimate, describe_counts, estimate_sweep

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob, SweepJob
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.screens.sweep import SweepScreen
    from softprompt_tui.state.settings import Form

SECONDS_WITHOUT_QUESTION = 60.0
Submit = Callable[["AnyJob", str], Awaitable[str]]


class SweepController:
    """Starts sweeps, updates the sweep screen, and saves the chosen soft prompts."""

    def __init__(self, context: AppContext, submit: Submit) -> None:
        self.context, self.store, self.submit = context, context.runs, submit
        self.screen: SweepScreen | None = None
        self._pending: set[SweepJob] = set()
        self._plans: dict[str, str] = {}  # what each sweep started here does and how long that takes, by run
        self._run_ids: dict[SweepJob, str] = {}  # starting the same sweep again shows its first run instead

    async def begin(self, form: Form) -> None:
        """Sweep the prompt in the editor, with all its settings except the token count."""
        from softprompt_tui.services.job_form import sweep_from_form

        try:
            job = sweep_from_form(form, self.context.settings.more)
            self.context.worker.check("submitted")  # before the question
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
            return
        if job in self._pending:  # the key was pressed again before the worker replied
            return
        self._pending.add(job)
        try:
            earlier = self._run_ids.get(job, "")
            if earlier and self._is_usable(earlier):
                run = earlier
            elif plan := await self._confirmed_plan(job):
                run = await self.submit(job, form.prompt)
                self._plans[run] = plan
            else:
                return
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
            return
        finally:
            self._pending.discard(job)
        self._run_ids = {other: run_id for other, run_id in self._run_ids.items() if self._is_usable(run_id)} | {
            job: run
        }
        self.context.post(SweepReady(run))

    async def _confirmed_plan(self, job: SweepJob) -> str:
        """Return a description of the sweep, or "" if the user declines it.

        Ask only if the sweep takes longer than a minute or its time is unknown. Raises the same errors as `check_fits`.
        """
        from softprompt.jobs.preflight import check_fits

        await asyncio.to_thread(check_fits, job)  # before the question
        rows, steps = len(job.sweep) * job.config.restarts, job.config.steps
        estimate = estimate_sweep(self.store.by_id.values(), job.model, job.device, rows, steps)
        plan = describe_plan(job, estimate)
        if estimate is not None and estimate.seconds <= SECONDS_WITHOUT_QUESTION:
            return plan
        return plan if await self.context.ask(AskKey(plan, [("enter", "start it")])) == "enter" else ""

    def _is_usable(self, run_id: str) -> bool:
        """Return whether a sweep still exists and has not failed or been stopped."""
        run = self.store.by_id.get(run_id)
        return run is not None and run.state not in ("failed", "stopped")

    def open(self, run_id: str) -> None:
        """Show a sweep on its screen."""
        from softprompt_tui.screens.sweep import SweepScreen  # takes 8 ms, so only when needed

        if self.screen is None and run_id in self.store.by_id:
            run = self.store.by_id[run_id]
            self.screen = SweepScreen(self.context, run, self._wait_text(run), self._plans.get(run_id, ""))
            self.context.show(self.screen, self._screen_closed)
            self.context.spawn(self.find_saved, group="swept")

    def _screen_closed(self) -> None:
        self.screen = None

    def is_open(self, run: str) -> bool:
        return self.screen is not None and self.screen.run.id == run

    def run_changed(self, run: str) -> None:
        """Repaint the screen soon if it shows this run."""
        if self.is_open(run):
            self.context.post(SweepChanged())

    def queue_changed(self) -> None:
        """Repaint the screen of a queued sweep, because the runs ahead of it may have changed."""
        if self.screen is not None and self.screen.run.state == "queued":
            self.context.post(SweepChanged())

    def paint(self) -> None:
        if self.screen is not None and (run := self.store.by_id.get(self.screen.run.id)):
            self.screen.show(run, self._wait_text(run))

    def _wait_text(self, run: RunSummary) -> str:
        return describe_wait(run, self.store.sorted_runs()) if run.state == "queued" else ""

    # the library

    async def find_saved(self) -> None:
        """Find out which soft prompts of the shown sweep are in the library."""
        screen = self.screen
        run = self.store.by_id.get(screen.run.id) if screen else None
        if screen is None or run is None:
            return
        screen.saved = await asyncio.to_thread(self._saved_names, run.id, [result.tokens for result in run.results])
        self.run_changed(run.id)

    def _saved_names(self, run: str, token_counts: Collection[int]) -> dict[int, str]:
        """Return the names of the saved soft prompts by their token counts."""
        from softprompt.worker.run_folder import sweep_entry_id  # takes 20 ms, so not before the first paint

        names = {}
        for k in token_counts:
            try:
                names[k] = self.context.library.find(sweep_entry_id(run, k)).name
            except SoftPromptError:
                continue
        return names

    def keep(self, run: str, token_counts: Collection[int]) -> None:
        """Save the soft prompts with these token counts. Restore any that are in the trash."""
        self.context.spawn(partial(self._keep, run, token_counts), group="keep", exclusive=True)

    async def _keep(self, run: str, token_counts: Collection[int]) -> None:
        try:
            entries = await self.context.worker.keep(run, sorted(token_counts))
            names = [await asyncio.to_thread(self._restored_name, entry) for entry in entries]
        except SoftPromptError as error:
            self._show_answer(run, str(error), is_kept=False)
            return
        self.context.post(LibraryChanged(entries[-1], by_user=False))
        await self.find_saved()
        self._show_answer(run, f"saved as {', '.join(names)}", is_kept=True)

    def _show_answer(self, run: str, words: str, is_kept: bool) -> None:
        if self.screen is not None and self.is_open(run):
            self.screen.show_reply(words, is_kept)

    def _restored_name(self, entry: str) -> str:
        """Return the name of an entry, restoring the entry first if it is in the trash."""
        library = self.context.library
        try:
            return library.find(entry).name
        except EntryNotFound:
            return library.restore(entry).prompt.name


def describe_plan(job: SweepJob, estimate: SweepEstimate | None) -> str:
    """Say what a sweep will do and how long that takes."""
    count, config = len(job.sweep), job.config
    what = "1 soft prompt" if count == 1 else f"{count} soft prompts at once"
    restarts = f", with {config.restarts} restarts each" if config.restarts > 1 else ""
    plan = f"The sweep trains {what}, of {describe_counts(job.sweep)} tokens, in {config.steps} steps{restarts}."
    if estimate is None:
        where = sanitize(f"{job.model} on {job.device}")
        return f"{plan} The time it takes is unknown: no run has trained with {where} yet."
    about = "up to " if estimate.is_upper_bound else "about "
    source = "an earlier training" if estimate.is_upper_bound else "an earlier sweep"
    return f"{plan} It takes {about}{format_duration(estimate.seconds)}, estimated from {source}."
