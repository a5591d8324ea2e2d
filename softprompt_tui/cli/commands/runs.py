"""`softprompt-tui runs`, `attach` and `stop`: the trainings in the worker's hands."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from softprompt.encoders.catalog import LOCAL
from softprompt.errors import UnknownModel
from softprompt.jobs.preflight import check_fits
from softprompt.worker import protocol as p
from softprompt.worker.summary import RunSummary
from softprompt_tui.cli.common import FAILED, fail, json_option, narrate, print_json, print_table
from softprompt_tui.cli.follow import follow, show_result
from softprompt_tui.rendering.numbers import age, figure
from softprompt_tui.state.queue import before, called, places, state_of

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob
    from softprompt.worker.client import Client


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from softprompt.worker.run_folder import folders, runs_folder

    return [CompletionItem(folder.id) for folder in folders(runs_folder()) if folder.id.startswith(incomplete)]


SHORT = 8  # letters of an id, where they name one run

run_argument = click.argument("run", shell_complete=complete_run)


def worker(older: bool = True) -> Client:
    """This user's worker, started if there is none; without `older`, one of an older version is waited for until it has made way."""
    from softprompt.worker.client import connect

    client = connect(on_wait=narrate, older=older)
    assert client is not None  # it was to be started
    return client


def resolved(model: str) -> str:
    """The model's name as it holds in another process, whose folder is another."""
    if not model.startswith(LOCAL):
        return model
    folder = Path(model.removeprefix(LOCAL)).absolute()
    if not folder.is_dir():
        raise UnknownModel(
            f"there is no folder {folder}: local-dir: takes a folder with open_clip_config.json and weights"
        )
    return f"{LOCAL}{folder}"


def submit(job: AnyJob, start: str, as_json: bool) -> None:
    """Hands a job to the worker, unless its model would refuse it, and prints the run's id."""
    check_fits(job)
    with worker(older=False) as client:
        run = client.request(p.Submit(job.as_dict(), start))
    if as_json:
        print_json(run)
        return
    click.echo(run["id"])
    narrate(f"it trains in the background: `softprompt-tui attach {run['id'][:6]}` shows it, `runs` lists all")


@click.group(invoke_without_command=True, subcommand_metavar="[pause|resume|move|drop RUN]")
@json_option
@click.pass_context
def runs(ctx: click.Context, as_json: bool) -> None:
    """List the runs: those under way and to come, in their order, then those that are over. A run is named by the first letters of its id.

    A run whose files cannot be read is listed as unreadable, with the reason; `runs drop` removes it. KIND is train, sweep, or hard, which looks for a hard readout of what is saved. A queued run has its place in the queue beside its state.

    \b
    Examples:
      softprompt-tui runs
      softprompt-tui runs --json
      softprompt-tui runs pause 3f2a
      softprompt-tui runs move 3f2a --before 91cc
    """
    if ctx.invoked_subcommand is not None:
        return
    from softprompt.worker.leases import is_here
    from softprompt.worker.run_folder import all_runs, runs_folder  # 15 ms, for this command alone

    folder = runs_folder()
    found = [run.summary() for run in all_runs(folder)]
    here = [run for run in found if run.state in ("running", "queued") and is_here(folder / run.id)]
    place = places(here)
    if as_json:
        print_json([run.as_dict() | {"place": place.get(run.id)} for run in found])
    elif not found:
        narrate(
            'There are no runs. A first one: softprompt-tui train "a lake at sunrise between high mountains" --background'
        )
    else:
        now = datetime.now(UTC)
        headings = ("run", "state", "kind", "step", "similarity", "age", "name or prompt")
        sharing = Counter(run.id[:SHORT] for run in found)
        shown = {run.id: run.id if sharing[run.id[:SHORT]] > 1 else run.id[:SHORT] for run in found}
        rows = [(shown[run.id], *_row(run, place, now, run.state == "unreadable")) for run in found]
        print_table(headings, rows, right=(3, 4, 5), stretch=6)
        if unreadable := next((run.id for run in found if run.state == "unreadable"), ""):
            narrate(f"what cannot be read is left as it is: `softprompt-tui runs drop {shown[unreadable]}` removes it")
        _say_what_is_waited_for(here)


def _row(run: RunSummary, place: dict[str, int], now: datetime, is_unreadable: bool) -> tuple[str, ...]:
    step = "-" if run.step is None else f"{run.step}/{run.steps}"
    figures = (step, figure(run.best_similarity), age(run.created, now))
    words = run.error if is_unreadable else run.name or run.prompt
    return (state_of(run, place.get(run.id)), run.kind, *figures, words)


def _say_what_is_waited_for(here: list[RunSummary]) -> None:
    """Of this host's runs: those of others wait for nothing that is done here."""
    from softprompt.worker.client import connect

    waiting = [run for run in here if run.state == "queued"]
    if not waiting:
        return
    if ahead := before(waiting[0], here):
        wait = "1 run waits" if len(waiting) == 1 else f"{len(waiting)} runs wait"
        training = ", ".join(f"{run.id[:8]} ({called(run)})" for run in ahead)
        narrate(f"{wait} behind {training}")
    else:
        client = connect(start=False, older=True)
        if client is None:
            narrate("No worker is there to train them: `softprompt-tui worker start` goes on")
        else:
            client.close()


def _do(request: p.Request, said: str) -> None:
    with worker(older=not isinstance(request, p.NEEDS_OURS)) as client:
        run = client.request(request)
    narrate(f"run {run['id'][:8]}: {said}")


@runs.command()
@run_argument
def pause(run: str) -> None:
    """Take RUN out of the queue with all that it has done; the next one trains meanwhile.

    \b
    Example:
      softprompt-tui runs pause 3f2a
    """
    _do(p.Pause(run), "paused; `runs resume` goes on with it")


@runs.command()
@run_argument
def resume(run: str) -> None:
    """Go on with a paused run, try a failed one again, or take over one whose host is no longer heard of.

    \b
    Example:
      softprompt-tui runs resume 3f2a
    """
    _do(p.Resume(run), "in the queue")


@runs.command()
@run_argument
@click.option(
    "--before",
    default="",
    metavar="RUN",
    shell_complete=complete_run,
    help="Train it before this one; last unless given.",
)
def move(run: str, before: str) -> None:
    """Give a waiting run another place in the queue.

    \b
    Examples:
      softprompt-tui runs move 3f2a --before 91cc
      softprompt-tui runs move 3f2a
    """
    _do(p.Move(run, before), "moved")


@runs.command()
@run_argument
def drop(run: str) -> None:
    """Remove RUN and what it has done; what it saved in the library stays there.

    \b
    Example:
      softprompt-tui runs drop 3f2a
    """
    _do(p.Drop(run), "dropped")


@click.command()
@run_argument
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No curve and no progress; only the result.")
def attach(run: str, as_json: bool, quiet: bool) -> None:
    """Show RUN with its whole curve until it ends, and then its result, as `train` does. Ctrl-C detaches; the training goes on.

    \b
    Examples:
      softprompt-tui attach 3f2a
      softprompt-tui attach 3f2a --json
    """
    ended = follow(worker, run, quiet)
    if ended is not None:
        show_result(ended, as_json)


@click.command()
@run_argument
@json_option
def stop(run: str, as_json: bool) -> None:
    """End RUN, save the best that it has reached, and show it. One that has not begun just leaves the queue.

    \b
    Example:
      softprompt-tui stop 3f2a
    """
    from softprompt.worker.summary import ENDED

    with worker() as client:
        stopped = RunSummary.from_message(client.request(p.Stop(run)))
    if stopped.state in ENDED:
        _stopped_unbegun(stopped, as_json)
        return
    ended = follow(worker, stopped.id, quiet=True)
    if ended is None:
        fail(f"run {stopped.id[:8]} was not seen to end: `softprompt-tui runs` tells", FAILED)
    show_result(ended, as_json, asked_for=True)


def _stopped_unbegun(run: RunSummary, as_json: bool) -> None:
    if as_json:
        print_json(run.as_dict())
    else:
        narrate(f"run {run.id[:8]} had not begun: nothing to save")
