"""`softprompt-tui runs`, `attach` and `stop`: the worker's runs."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem

from softprompt.encoders.catalog import LOCAL_PREFIX, MINI, find_local, is_gguf
from softprompt.errors import UnknownModel
from softprompt.jobs.preflight import check_fits
from softprompt.worker import hub_variables
from softprompt.worker import protocol as p
from softprompt.worker.summary import RunSummary
from softprompt_tui.cli.common import FAILED, fail, json_option, narrate, print_json, print_table
from softprompt_tui.cli.follow import follow, print_run_result
from softprompt_tui.rendering.numbers import format_age, format_number
from softprompt_tui.state.queue import describe_run, format_state, queue_places, runs_ahead

if TYPE_CHECKING:
    from softprompt.jobs.job import AnyJob
    from softprompt.worker.client import Client


def complete_run(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from softprompt.worker.run_folder import list_folders, runs_folder

    return [CompletionItem(folder.id) for folder in list_folders(runs_folder()) if folder.id.startswith(incomplete)]


def complete_dropped(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from softprompt.worker.run_folder import list_dropped, runs_folder

    return [CompletionItem(run) for run in list_dropped(runs_folder()) if run.startswith(incomplete)]


SHORT_ID_LENGTH = 8  # letters of an id shown in the table, if they are unique

run_argument = click.argument("run", shell_complete=complete_run)


def worker(older: bool = True) -> Client:
    """Connect to this user's worker, and start it if needed.

    Args:
        older: accept a worker of an older version instead of waiting until it hands over to a new one.
    """
    from softprompt.worker.client import connect

    client = connect(on_wait=narrate, accept_older=older)
    assert client is not None  # connect starts a worker by default
    return client


def resolve_model(model: str) -> str:
    """Make the path of a local model absolute, because the worker runs in a different folder."""
    if (path := find_local(model)) is None:
        return model
    if is_gguf(path):
        if not path.is_file():
            raise UnknownModel(f"there is no file {path}. Name a .gguf file, or a folder with weights.")
    elif not path.is_dir():
        raise UnknownModel(
            f"there is no folder {path}. `local-dir:` must name a folder with open_clip_config.json and weights."
        )
    return f"{LOCAL_PREFIX}{path}"


def submit(job: AnyJob, start: str, as_json: bool) -> None:
    """Submit a job to the worker and print the run's id. Raises the same errors as `check_fits`."""
    check_fits(job)
    with worker(older=False) as client:
        run = client.request(p.Submit(job.as_dict(), start))
        is_from_hub = job.model.lower() != MINI and not job.model.startswith(LOCAL_PREFIX)
        if is_from_hub and hub_variables.has_other_variables(client.worker):
            narrate(f"note: {hub_variables.ADVICE}")
    if as_json:
        print_json(run)
        return
    click.echo(run["id"])
    narrate(f"training in the background. `softprompt-tui attach {run['id'][:6]}` shows it, `runs` lists all runs.")


@click.group(invoke_without_command=True, subcommand_metavar="[pause|resume|move|drop|restore RUN]")
@json_option
@click.pass_context
def runs(ctx: click.Context, as_json: bool) -> None:
    """List the runs: running and queued ones in order, then finished ones. Name a run by the first letters of its id.

    KIND is train, sweep, or hard (a search for a hard readout). A queued run shows its place in the queue. A run whose
    files cannot be read is listed as unreadable, with the reason; `runs drop` removes it.

    \b
    Examples:
      softprompt-tui runs
      softprompt-tui runs --json
      softprompt-tui runs pause 3f2a
      softprompt-tui runs move 3f2a --before 91cc
    """
    if ctx.invoked_subcommand is not None:
        return
    from softprompt.worker.leases import is_on_this_host
    from softprompt.worker.run_folder import list_runs, runs_folder  # takes 15 ms and is needed here only

    folder = runs_folder()
    all_runs = [run.summary() for run in list_runs(folder)]
    local_runs = [run for run in all_runs if run.state in ("running", "queued") and is_on_this_host(folder / run.id)]
    places = queue_places(local_runs)
    if as_json:
        print_json([run.as_dict() | {"place": places.get(run.id)} for run in all_runs])
    elif not all_runs:
        narrate(
            'There are no runs. Start one with: softprompt-tui train "a lake at sunrise between mountains" --background'
        )
    else:
        now = datetime.now(UTC)
        headings = ("run", "state", "kind", "step", "similarity", "age", "name or prompt")
        prefix_counts = Counter(run.id[:SHORT_ID_LENGTH] for run in all_runs)
        short_ids = {
            run.id: run.id if prefix_counts[run.id[:SHORT_ID_LENGTH]] > 1 else run.id[:SHORT_ID_LENGTH]
            for run in all_runs
        }
        rows = [(short_ids[run.id], *_row(run, places, now, run.state == "unreadable")) for run in all_runs]
        print_table(headings, rows, right=(3, 4, 5), stretch=6)
        if unreadable := next((run.id for run in all_runs if run.state == "unreadable"), ""):
            narrate(f"`softprompt-tui runs drop {short_ids[unreadable]}` removes the unreadable run")
        _explain_waiting(local_runs)


def _row(run: RunSummary, places: dict[str, int], now: datetime, is_unreadable: bool) -> tuple[str, ...]:
    step = "-" if run.step is None else f"{run.step}/{run.steps}"
    numbers = (step, format_number(run.best_similarity), format_age(run.created, now))
    text = run.error if is_unreadable else run.name or run.prompt
    return (format_state(run, places.get(run.id)), run.kind, *numbers, text)


def _explain_waiting(local_runs: list[RunSummary]) -> None:
    """Print what the queued runs of this host are waiting for. Runs of other hosts wait for nothing on this one."""
    from softprompt.worker.client import connect

    waiting = [run for run in local_runs if run.state == "queued"]
    if not waiting:
        return
    if ahead := runs_ahead(waiting[0], local_runs):
        wait = "1 run waits" if len(waiting) == 1 else f"{len(waiting)} runs wait"
        training = ", ".join(f"{run.id[:8]} ({describe_run(run)})" for run in ahead)
        narrate(f"{wait} behind {training}")
    else:
        client = connect(start=False, on_wait=narrate, accept_older=True)
        if client is None:
            narrate("No worker is running. `softprompt-tui worker start` continues the queue.")
        else:
            client.close()


def _send_request(request: p.Request, message: str) -> None:
    with worker(older=not isinstance(request, p.NEEDS_CURRENT_WORKER)) as client:
        run = client.request(request)
    narrate(f"run {run['id'][:8]}: {message}")


@runs.command()
@run_argument
def pause(run: str) -> None:
    """Pause RUN, keeping its progress. The next queued run starts in its place.

    \b
    Example:
      softprompt-tui runs pause 3f2a
    """
    _send_request(p.Pause(run), "paused; `runs resume` continues it")


@runs.command()
@run_argument
def resume(run: str) -> None:
    """Continue a paused run, retry a failed one, or take over one whose host no longer responds.

    \b
    Example:
      softprompt-tui runs resume 3f2a
    """
    _send_request(p.Resume(run), "queued")


@runs.command()
@run_argument
@click.option(
    "--before",
    default="",
    metavar="RUN",
    shell_complete=complete_run,
    help="Train it before this run. By default, it moves to the end of the queue.",
)
def move(run: str, before: str) -> None:
    """Move a waiting run to another place in the queue.

    \b
    Examples:
      softprompt-tui runs move 3f2a --before 91cc
      softprompt-tui runs move 3f2a
    """
    _send_request(p.Move(run, before), "moved")


@runs.command()
@run_argument
def drop(run: str) -> None:
    """Remove RUN and its progress. Anything it saved in the library stays there. `runs restore` undoes it for a day.

    \b
    Example:
      softprompt-tui runs drop 3f2a
    """
    _send_request(p.Drop(run), "dropped; `runs restore` brings it back within a day")


@runs.command()
@click.argument("run", shell_complete=complete_dropped)
def restore(run: str) -> None:
    """Bring back RUN, which was dropped within the last day. A queued run takes its old place in the queue.

    \b
    Example:
      softprompt-tui runs restore 3f2a
    """
    _send_request(p.Restore(run), "is back")


@click.command()
@run_argument
@json_option
@click.option("--quiet", "-q", is_flag=True, help="Show only the result, without the curve.")
def attach(run: str, as_json: bool, quiet: bool) -> None:
    """Show RUN and its curve until it ends, then its result, as `train` does. Ctrl-C detaches; the training goes on.

    \b
    Examples:
      softprompt-tui attach 3f2a
      softprompt-tui attach 3f2a --json
    """
    ended = follow(worker, run, quiet)
    if ended is not None:
        print_run_result(ended, as_json)


@click.command()
@run_argument
@json_option
def stop(run: str, as_json: bool) -> None:
    """Stop RUN, then save and show its best result so far. A run that has not started is removed from the queue.

    \b
    Example:
      softprompt-tui stop 3f2a
    """
    from softprompt.worker.summary import ENDED

    with worker() as client:
        stopped = RunSummary.from_message(client.request(p.Stop(run)))
    if stopped.state in ENDED:
        _print_unstarted(stopped, as_json)
        return
    ended = follow(worker, stopped.id, quiet=True)
    if ended is None:
        fail(f"the worker exited before run {stopped.id[:8]} ended. Check it with `softprompt-tui runs`.", FAILED)
    print_run_result(ended, as_json, asked_for=True)


def _print_unstarted(run: RunSummary, as_json: bool) -> None:
    if as_json:
        print_json(run.as_dict())
    else:
        narrate(f"run {run.id[:8]} had not started, so there is nothing to save")
