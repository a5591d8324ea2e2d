"""`softprompt-tui worker`: status, start, stop and log of the background process."""

from __future__ import annotations

import time
from collections import deque

import click

from softprompt.worker import protocol as p
from softprompt.worker.log import log_path
from softprompt_tui.cli.commands.runs import worker as connect_worker
from softprompt_tui.cli.common import FAILED, fail, json_option, narrate, print_json
from softprompt_tui.cli.report import print_line
from softprompt_tui.rendering.sanitize import sanitize

EXIT_TIMEOUT_SECONDS = 5.0  # how long to wait for the process to exit after its last message


@click.group()
def worker() -> None:
    """Control the process that trains in the background.

    The worker trains one run after another, keeps the model loaded and outlives the terminal. It starts when needed
    and ends after 15 minutes without work. After a crash or a reboot it continues where it left off.

    \b
    Examples:
      softprompt-tui worker status
      softprompt-tui worker stop
      softprompt-tui worker logs
    """


@worker.command()
@json_option
def status(as_json: bool) -> None:
    """Show whether the worker is running, what it is training and which models are loaded. Exit code 1 if it is not.

    \b
    Example:
      softprompt-tui worker status
    """
    from softprompt.worker.client import CONTROL_SECONDS, connect

    client = connect(start=False, on_wait=narrate, accept_older=True, answer_seconds=CONTROL_SECONDS)
    if client is None:
        fail(
            "no worker is running. `softprompt-tui worker start` or `softprompt-tui train … --background` starts one; "
            "`softprompt-tui worker logs` shows why the last one ended.",
            FAILED,
        )
    with client:
        reply = client.request(p.Status())
    if as_json:
        print_json(reply)
        return
    others = reply["clients"] - 1
    clients = f"{others} other client{'s' * (others != 1)}"
    print_line("worker", f"process {reply['pid']}, version {reply['version']}, {clients}")
    if client.making_way:
        print_line(
            "older", "than this program. It ends when its run is done, and the next command starts the new version"
        )
    print_line("training", reply["running"] or "nothing")
    print_line("waiting", f"{reply['queued']} run{'s' * (reply['queued'] != 1)}, {reply['paused']} paused")
    print_line("loaded", ", ".join(reply["models"]) or "no model")
    print_line("data", reply["home"])
    print_line("socket", reply["socket"])


@worker.command()
def start() -> None:
    """Start the worker if it is not running. Interrupted runs continue.

    \b
    Example:
      softprompt-tui worker start
    """
    with connect_worker() as client:
        reply = client.request(p.Status())
    older = f"; it is an older version and ends when run {client.making_way[:8]} is done" if client.making_way else ""
    narrate(f"the worker is running: process {reply['pid']}{older}")


@worker.command()
@click.option(
    "--finish",
    is_flag=True,
    help="Let the current run finish first. By default, it continues at the next start.",
)
@click.option("--force", is_flag=True, help="End its process, even if it does not answer.")
def stop(finish: bool, force: bool) -> None:
    """Stop the worker. Nothing is lost: unfinished runs continue when it starts again.

    --force asks the process to end, and kills it if it has not ended after 12 seconds. Runs then continue from their
    last checkpoints, which are a few seconds old.

    \b
    Examples:
      softprompt-tui worker stop
      softprompt-tui worker stop --finish
      softprompt-tui worker stop --force
    """
    from softprompt.worker.client import CONTROL_SECONDS, WorkerGone, connect
    from softprompt.worker.leases import start_ticks as started_at

    if finish and force:
        raise click.UsageError("give either --finish or --force: --force does not wait for the run")
    if force:
        _stop_by_force()
        return
    client = connect(start=False, on_wait=narrate, accept_older=True, answer_seconds=CONTROL_SECONDS)
    if client is None:
        narrate("no worker is running")
        return
    with client:
        pid = client.request(p.Status())["pid"]
        running = client.request(p.Shutdown(finish))["running"]
        if running and finish:
            narrate(f"the worker will end when run {running[:8]} is done")
            return
        try:
            for _ in client.events():  # ends when the connection closes
                pass
        except WorkerGone:
            pass
    deadline = time.monotonic() + EXIT_TIMEOUT_SECONDS
    while started_at(pid) and time.monotonic() < deadline:  # the worker is not our child, so we can only poll
        time.sleep(0.02)
    narrate(
        f"the worker has ended; run {running[:8]} continues when it starts again" if running else "the worker has ended"
    )


def _stop_by_force() -> None:
    from softprompt.worker.endpoint import Endpoint
    from softprompt.worker.force import end_worker

    ended = end_worker(Endpoint())
    if ended is None:
        narrate("no worker is running")
    else:
        how = "was killed" if ended.was_killed else "has ended"
        narrate(f"the worker (process {ended.pid}) {how}; unfinished runs continue when it starts again")


@worker.command()
@click.option("--lines", "-n", type=click.IntRange(1, 100_000), default=40, show_default=True, help="Number of lines.")
def logs(lines: int) -> None:
    """Show the end of the worker's log.

    \b
    Example:
      softprompt-tui worker logs -n 100
    """
    try:
        with log_path().open(encoding="utf-8", errors="replace") as file:
            for text in deque(file, lines):
                click.echo(sanitize(text.rstrip("\n")))
    except FileNotFoundError:
        narrate(f"there is no log yet; it will be written to {log_path()}")
