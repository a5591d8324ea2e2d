"""Train the prompt with many numbers of tokens at once, show them on their own screen, and save what the user picks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

from softprompt.errors import EntryNotFound, SoftPromptError
from softprompt_tui.messages import LibraryChanged, SweepChanged, SweepReady
from softprompt_tui.state.queue import told

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob, SweepJob
    from softprompt.worker.summary import RunSummary
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.screens.sweep import SweepScreen
    from softprompt_tui.state.settings import Form

Submit = Callable[["AnyJob", str], Awaitable[str]]


class SweepController:
    """Begins them, feeds the screen that shows one, and keeps what is chosen there. `submit` is that of the runs."""

    def __init__(self, context: AppContext, submit: Submit) -> None:
        self.context, self.store, self.submit = context, context.runs, submit
        self.screen: SweepScreen | None = None
        self._on_their_way: set[SweepJob] = set()
        self._going: dict[
            SweepJob, str
        ] = {}  # what was asked for here: asked for again, it is shown and not trained again

    async def begin(self, form: Form) -> None:
        """Sweeps the prompt in the editor, with its settings but for the tokens."""
        from softprompt_tui.services.job_form import sweep_of

        try:
            job = sweep_of(form, self.context.settings.more)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
            return
        if job in self._on_their_way:  # the key again, before the worker has answered
            return
        self._on_their_way.add(job)
        try:
            before = self._going.get(job, "")
            run = before if before and self._is_good(before) else await self.submit(job, form.prompt)
        except SoftPromptError as error:
            self.context.show_status(str(error), "error")
            return
        finally:
            self._on_their_way.discard(job)
        self._going = {known: one for known, one in self._going.items() if self._is_good(one)} | {job: run}
        self.context.post(SweepReady(run))

    def _is_good(self, run: str) -> bool:
        """Whether a sweep that was begun here is there still, and has not failed."""
        known = self.store.known.get(run)
        return known is not None and known.state not in ("failed", "stopped")

    def open(self, run: str) -> None:
        """Show a sweep on its screen."""
        from softprompt_tui.screens.sweep import SweepScreen  # 8 ms, for this alone

        if self.screen is None and run in self.store.known:
            known = self.store.known[run]
            self.screen = SweepScreen(self.context, known, self._waits(known))
            self.context.show(self.screen, self._left)
            self.context.spawn(self.look, group="swept")

    def _left(self) -> None:
        self.screen = None

    def is_open(self, run: str) -> bool:
        return self.screen is not None and self.screen.run.id == run

    def changed(self, run: str) -> None:
        """A run is another: its screen is painted soon, where it is open."""
        if self.is_open(run):
            self.context.post(SweepChanged())

    def queue_moved(self) -> None:
        """What the sweep that is open waits for may be another."""
        if self.screen is not None and self.screen.run.state == "queued":
            self.context.post(SweepChanged())

    def paint(self) -> None:
        if self.screen is not None and (run := self.store.known.get(self.screen.run.id)):
            self.screen.show(run, self._waits(run))

    def _waits(self, run: RunSummary) -> str:
        return told(run, self.store.in_order()) if run.state == "queued" else ""

    # the library

    async def look(self) -> None:
        """Looks which of the shown sweep's soft prompts are in the library."""
        screen = self.screen
        run = self.store.known.get(screen.run.id) if screen else None
        if screen is None or run is None:
            return
        screen.saved = await asyncio.to_thread(self._saved, run.id, [one.tokens for one in run.results])
        self.changed(run.id)

    def _saved(self, run: str, numbers: Collection[int]) -> dict[int, str]:
        """The names of those that are there, by their tokens."""
        from softprompt.worker.run_folder import swept_id  # 20 ms, which the first paint does without

        found = {}
        for k in numbers:
            try:
                found[k] = self.context.library.find(swept_id(run, k)).name
            except SoftPromptError:
                continue
        return found

    def keep(self, run: str, numbers: Collection[int]) -> None:
        """Saves those. What was kept before and lies in the trash is taken out of it."""
        self.context.spawn(partial(self._keep, run, numbers), group="keep", exclusive=True)

    async def _keep(self, run: str, numbers: Collection[int]) -> None:
        try:
            kept = await self.context.worker.keep(run, sorted(numbers))
            names = [await asyncio.to_thread(self._there, entry) for entry in kept]
        except SoftPromptError as error:
            self._answer(run, str(error), is_kept=False)
            return
        self.context.post(LibraryChanged(kept[-1], by_hand=False))
        await self.look()
        self._answer(run, f"kept as {', '.join(names)}", is_kept=True)

    def _answer(self, run: str, words: str, is_kept: bool) -> None:
        if self.screen is not None and self.is_open(run):
            self.screen.answer(words, is_kept)

    def _there(self, entry: str) -> str:
        library = self.context.library
        try:
            return library.find(entry).name
        except EntryNotFound:
            return library.restore(entry).prompt.name
