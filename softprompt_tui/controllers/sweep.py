"""Sweeps: the prompt trained with many numbers of tokens at once, watched on a screen of their own, and kept as far as is wished."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from softprompt.errors import EntryNotFound, SoftPromptError
from softprompt.worker import protocol as p
from softprompt.worker.run_folder import swept_id
from softprompt_tui.controllers.detail import PAINT_EVERY
from softprompt_tui.screens.sweep import SweepScreen
from softprompt_tui.services.job_form import sweep_of

if TYPE_CHECKING:
    from softprompt.jobs.job import SweepJob
    from softprompt_tui.app import SoftPromptApp

SLOWER = 2  # times: table and plot are several times what a curve's figures are


class Sweeps:
    """Begins them, feeds the screen that shows one, and keeps what is chosen there."""

    def __init__(self, app: SoftPromptApp) -> None:
        self.app = app
        self._painted, self._waiting = 0.0, False
        self._on_their_way: set[SweepJob] = set()
        self._going: dict[SweepJob, str] = {}  # what was asked for here: asked for again, it is shown and not trained again

    async def begin(self) -> None:
        """Sweeps the prompt in the editor, with its settings but for the tokens."""
        app, pane = self.app, self.app.prompt_pane
        try:
            job = sweep_of(pane.prompt, pane.fields, app.settings.more)
        except SoftPromptError as error:
            app.say(str(error), "error")
            return
        if job in self._on_their_way:  # the key again, before the worker has answered
            return
        self._on_their_way.add(job)
        try:
            before = self._going.get(job, "")
            run = before if before and self._is_good(before) else await app.runs.submit(job)
        except SoftPromptError as error:
            app.say(str(error), "error")
            return
        finally:
            self._on_their_way.discard(job)
        self._going = {known: one for known, one in self._going.items() if self._is_good(one)} | {job: run}
        self.open(run)

    def _is_good(self, run: str) -> bool:
        """Whether a sweep that was begun here is there still, and has not failed."""
        known = self.known(run)
        return known is not None and known["state"] not in ("failed", "stopped")

    def open(self, run: str) -> None:
        if len(self.app.screen_stack) == 1 and run in self.app.runs.known:
            self.app.push_screen(SweepScreen(self, run))
            self.app.begin(self.look, group="swept")

    def is_open(self, run: str) -> bool:
        screen = self._screen
        return screen is not None and screen.run_id == run

    @property
    def _screen(self) -> SweepScreen | None:
        return next((screen for screen in self.app.screen_stack if isinstance(screen, SweepScreen)), None)

    def changed(self, run: str) -> None:
        """Paints soon, where that run is open."""
        if self.is_open(run) and not self._waiting:
            self._waiting = True
            self.app.set_timer(max(0.01, self._painted + SLOWER * PAINT_EVERY - time.monotonic()), self._paint)

    def queue_moved(self) -> None:
        """What the sweep that is open waits for may be another."""
        if (screen := self._screen) and screen.run.get("state") == "queued":
            self.changed(screen.run_id)

    def waits(self, run: dict[str, Any]) -> str:
        return self.app.runs.waits(run)

    def _paint(self) -> None:
        self._waiting, self._painted = False, time.monotonic()
        screen = self._screen
        if screen is not None and screen.is_mounted:
            screen.show()

    def known(self, run: str) -> dict[str, Any] | None:
        return self.app.runs.known.get(run)

    # the library

    async def look(self) -> None:
        """Looks which of the shown sweep's soft prompts are in the library."""
        screen = self._screen
        run = self.known(screen.run_id) if screen else None
        if screen is None or run is None:
            return
        screen.saved = await asyncio.to_thread(self._saved, run["id"], [one["tokens"] for one in run["results"]])
        self.changed(run["id"])

    def _saved(self, run: str, numbers: Collection[int]) -> dict[int, str]:
        """The names of those that are there, by their tokens."""
        found = {}
        for k in numbers:
            try:
                found[k] = self.app.library.find(swept_id(run, k)).name
            except SoftPromptError:
                continue
        return found

    async def keep(self, run: str, numbers: Collection[int]) -> str:
        """Saves those; what became of it in words. What was kept before and lies in the trash is taken out of it. Raises SoftPromptError."""
        kept = (await self.app.line.ask(p.Keep(run, sorted(numbers))))["kept"]
        names = [await asyncio.to_thread(self._there, one["entry"]) for one in kept]
        self.app.entries.changed("" if self.app.library_pane.table.has_focus else kept[-1]["entry"])
        await self.look()
        return f"kept as {', '.join(names)}"

    def _there(self, entry: str) -> str:
        try:
            return self.app.library.find(entry).name
        except EntryNotFound:
            return self.app.library.restore(entry).prompt.name

    def stop(self, run: str) -> None:
        self.app.runs.act("stop", run)
