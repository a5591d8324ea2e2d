"""Quitting: ask about active runs, and save the settings and the draft."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from softprompt.errors import HomeError
from softprompt_tui.screens.dialogs import AskKey
from softprompt_tui.state import settings as stored_settings
from softprompt_tui.state.draft import QUIET_SECONDS
from softprompt_tui.state.runs import ACTIVE_STATES

if TYPE_CHECKING:
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.state.draft import Draft


class QuitController:
    """Asks the user before quitting. `stop_runs` and `wait_for_submits` come from RunsController."""

    def __init__(
        self,
        context: AppContext,
        stop_runs: Callable[[list[str]], Awaitable[list[str]]],
        wait_for_submits: Callable[[], Awaitable[None]],
    ) -> None:
        self.context = context
        self.stop_runs, self.wait_for_submits = stop_runs, wait_for_submits

    async def confirm_quit(self) -> bool:
        """Return whether to quit. If runs are active, ask whether to stop them first.

        Runs started by another interface or a command are only stopped if the user says so. While the worker is
        starting, unfinished runs count as active, because the worker will resume them. If a run cannot be stopped, do
        not quit.
        """
        context, runs, worker = self.context, self.context.runs, self.context.worker
        own = sum(run in runs.started_here for run in runs.active_ids()) + runs.pending_submits
        other = len(runs.active_ids()) + runs.pending_submits - own
        if not other and worker.state == "starting":  # the worker has not reported its runs yet
            other = await asyncio.to_thread(_count_unfinished_runs)
        if not (own or other) or worker.state == "gone":
            return True
        answer = await context.ask(AskKey(*_quit_question(own, other)))
        if answer:
            await self.wait_for_submits()  # quitting would cancel them
        if answer in ("s", "a"):
            if worker.state == "starting":
                context.show_status("the runs will stop as soon as the worker is up")
            if not await worker.wait_until_up():
                return False  # the reason is already on the screen
            if refused := await self.stop_runs(
                [run for run in runs.active_ids() if answer == "a" or run in runs.started_here]
            ):
                context.show_status("\n".join(refused), "error")
                return False
        return bool(answer)


def _quit_question(own: int, other: int) -> tuple[str, list[tuple[str, str]]]:
    """Return the question and the possible answers."""
    count = own + other
    state = "A run is in progress" if count == 1 else f"{count} runs are in progress or waiting"
    origin = "" if not other else ", not started here" if not own else f", {other} of them not started here"
    keep = ("k", "keep training and quit; the next start shows it")
    stop_own = ("s", f"stop {'those started here' if other else 'training'}, save the best so far, and quit")
    stop_all = ("a", "stop all, including those of other interfaces and commands, and quit")
    return f"{state}{origin}.", [keep, *[stop_own] * bool(own), *[stop_all] * bool(other)]


def _count_unfinished_runs() -> int:
    """Count the runs that this host's worker will resume once it is up."""
    from softprompt.worker.leases import is_on_this_host
    from softprompt.worker.run_folder import list_runs, runs_folder  # takes 20 ms, so not before the first paint

    runs = runs_folder()
    try:
        return sum(run.state in ACTIVE_STATES and is_on_this_host(runs / run.id) for run in list_runs(runs))
    except HomeError:  # the worker cannot read them either
        return 0


def save_settings(settings: stored_settings.Settings, draft: Draft) -> str:
    """Write the settings and remove the draft. Return an error message or ""."""
    try:
        stored_settings.save(settings)
    except (OSError, HomeError) as error:
        return f"settings not saved: {error}"
    draft.discard()
    return ""


async def save_draft(draft: Draft, prompt: str, fields: dict[str, str], composition: str) -> str:
    """Write the draft after a pause in typing. Return an error message or ""."""
    await asyncio.sleep(QUIET_SECONDS)
    try:
        await asyncio.to_thread(draft.save, prompt, fields, composition)
    except (OSError, HomeError) as error:
        return f"draft not saved: {error}"
    return ""
