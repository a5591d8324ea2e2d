"""Leaving the interface: what is asked before, and what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from softprompt.errors import HomeError
from softprompt_tui.screens.dialogs import AskKey
from softprompt_tui.state import settings as kept
from softprompt_tui.state.draft import QUIET_SECONDS
from softprompt_tui.state.runs import GOING

if TYPE_CHECKING:
    from softprompt_tui.app_context import AppContext
    from softprompt_tui.state.draft import Draft


class QuitController:
    """`stop_runs` and `all_handed_in` are those of the runs."""

    def __init__(
        self,
        context: AppContext,
        stop_runs: Callable[[list[str]], Awaitable[list[str]]],
        all_handed_in: Callable[[], Awaitable[None]],
    ) -> None:
        self.context = context
        self.stop_runs, self.all_handed_in = stop_runs, all_handed_in

    async def confirm_quit(self) -> bool:
        """Whether to leave: asked once where something trains, which goes on or is stopped as the answer says.

        What another interface or a command has started is stopped only by an answer that says so. A worker that is only being
        started will train what was left, so that is asked too; what was to be stopped and is not keeps one here.
        """
        context, runs, worker = self.context, self.context.runs, self.context.worker
        ours = sum(run in runs.ours for run in runs.going()) + runs.on_their_way
        others = len(runs.going()) + runs.on_their_way - ours
        if not others and worker.state == "starting":  # the worker has not told yet
            others = await asyncio.to_thread(_left_to_train)
        if not (ours or others) or worker.state == "gone":
            return True
        answer = await context.ask(AskKey(*_question(ours, others)))
        if answer:
            await self.all_handed_in()  # leaving would take back what is still on its way
        if answer in ("s", "a"):
            if worker.state == "starting":
                context.show_status("it is stopped as soon as the worker is there")
            if not await worker.comes_up():
                return False  # why it is not there has been said
            if refused := await self.stop_runs([run for run in runs.going() if answer == "a" or run in runs.ours]):
                context.show_status("\n".join(refused), "error")
                return False
        return bool(answer)


def _question(ours: int, others: int) -> tuple[str, list[tuple[str, str]]]:
    """What is asked, and the answers."""
    going = ours + others
    what = "A training is under way" if going == 1 else f"{going} trainings are under way or waiting"
    whose = "" if not others else ", not started here" if not ours else f", {others} of them not started here"
    keep = ("k", "keep training; the next start shows it")
    stop_ours = ("s", f"stop {'what was started here' if others else 'all of it'}, save the best so far, and quit")
    stop_all = ("a", "stop all of it, also what another interface or a command started, and quit")
    return f"{what}{whose}.", [keep, *[stop_ours] * bool(ours), *[stop_all] * bool(others)]


def _left_to_train() -> int:
    """How many runs this host's worker will go on with once it is there."""
    from softprompt.worker.leases import is_here
    from softprompt.worker.run_folder import all_runs, runs_folder  # 20 ms, which the first paint does without

    runs = runs_folder()
    try:
        return sum(run.state in GOING and is_here(runs / run.id) for run in all_runs(runs))
    except HomeError:  # nor will the worker read them
        return 0


def save_settings(settings: kept.Settings, draft: Draft) -> str:
    """Remembers what is typed and chosen; returns why that could not be written, or ""."""
    try:
        kept.save(settings)
    except (OSError, HomeError) as error:
        return f"settings not saved: {error}"
    draft.discard()
    return ""


async def keep_draft(draft: Draft, prompt: str, fields: dict[str, str], composition: str) -> str:
    """Writes what is typed to disk once the keys have come to rest; returns why that failed, or ""."""
    await asyncio.sleep(QUIET_SECONDS)
    try:
        await asyncio.to_thread(draft.save, prompt, fields, composition)
    except (OSError, HomeError) as error:
        return f"draft not saved: {error}"
    return ""
