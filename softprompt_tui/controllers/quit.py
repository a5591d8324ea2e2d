"""Leaving the interface: what is asked before, and what it remembers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from softprompt.errors import HomeError
from softprompt.worker.leases import is_here
from softprompt.worker.run_folder import all_runs, runs_folder
from softprompt_tui.controllers.runs import GOING
from softprompt_tui.screens.dialogs import AskKey
from softprompt_tui.state import settings as kept
from softprompt_tui.state.draft import QUIET_SECONDS

if TYPE_CHECKING:
    from softprompt_tui.app import SoftPromptApp


async def is_meant(app: SoftPromptApp) -> bool:
    """Whether to leave: asked once where something trains, which goes on or is stopped as the answer says.

    What another interface or a command has started is stopped only by an answer that says so. A worker that is only being
    started will train what was left, so that is asked too; what was to be stopped and is not keeps one here.
    """
    runs = app.runs
    ours = sum(run in runs.ours for run in runs.going()) + runs.on_their_way
    others = len(runs.going()) + runs.on_their_way - ours
    if not others and app.line.state == "starting":  # the worker has not told yet
        others = await asyncio.to_thread(_left_to_train)
    if not (ours or others) or app.line.state == "gone":
        return True
    answer = await app.push_screen_wait(AskKey(*_question(ours, others)))
    if answer:
        await runs.all_handed_in()  # leaving would take back what is still on its way
    if answer in ("s", "a"):
        if app.line.state == "starting":
            app.say("it is stopped as soon as the worker is there")
        if not await app.line.comes_up():
            return False  # why it is not there has been said
        if refused := await runs.stop([run for run in runs.going() if answer == "a" or run in runs.ours]):
            app.say("\n".join(refused), "error")
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
    runs = runs_folder()
    try:
        return sum(run.state in GOING and is_here(runs / run.id) for run in all_runs(runs))
    except HomeError:  # nor will the worker read them
        return 0


def save_settings(app: SoftPromptApp) -> None:
    """Remembers what is typed and chosen; where it cannot be written it is only logged."""
    if not app.is_there():
        return
    pane, settings = app.prompt_pane, app.settings
    settings.theme, settings.pane, settings.sort = app.theme, app.below, app.library_pane.order
    settings.prompt, settings.train, settings.compose = pane.editor.text, pane.fields, app.compose_pane.composition
    try:
        kept.save(settings)
    except (OSError, HomeError) as error:
        app.log(f"settings not saved: {error}")
    else:
        app.draft.discard()


async def keep_draft(app: SoftPromptApp) -> None:
    """Writes what is typed to disk once the keys have come to rest."""
    await asyncio.sleep(QUIET_SECONDS)
    pane = app.prompt_pane
    try:
        await asyncio.to_thread(app.draft.save, pane.editor.text, pane.fields, app.compose_pane.composition)
    except (OSError, HomeError) as error:
        app.log(f"draft not saved: {error}")
