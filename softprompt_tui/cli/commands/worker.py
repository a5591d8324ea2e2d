"""`softprompt-tui worker`: the process that trains in the background."""

from __future__ import annotations

import time
from collections import deque

import click

from softprompt.worker import protocol as p
from softprompt.worker.log import log_path
from softprompt_tui.cli.commands.runs import worker as started
from softprompt_tui.cli.common import FAILED, fail, json_option, narrate, print_json
from softprompt_tui.cli.report import line
from softprompt_tui.rendering.sanitize import sanitize

GONE_WITHIN = 5.0  # seconds after its last word


@click.group()
def worker() -> None:
    """The worker trains runs one after another, keeps the model loaded, and outlives the terminal. It starts by itself when it is
    needed, and ends after 15 minutes without work. Killed or rebooted, it goes on where it was when it starts again.

    \b
    Examples:
      softprompt-tui worker status
      softprompt-tui worker stop
      softprompt-tui worker logs
    """


@worker.command()
@json_option
def status(as_json: bool) -> None:
    """Show whether it runs, what it trains and which models are loaded. Exit code 1: there is none.

    \b
    Example:
      softprompt-tui worker status
    """
    from softprompt.worker.client import connect

    client = connect(start=False, older=True)
    if client is None:
        fail(
            "no worker is running; `softprompt-tui train … --background` or `softprompt-tui worker start` starts it, "
            "`softprompt-tui worker logs` tells how the last one ended",
            FAILED,
        )
    with client:
        found = client.request(p.Status())
    if as_json:
        print_json(found)
        return
    line("worker", f"process {found['pid']}, version {found['version']}, {found['clients'] - 1} other clients")
    if client.making_way:
        line("older", "than this program: it makes way when its run is done, and the next command starts a newer one")
    line("training", found["running"] or "nothing")
    line("waiting", f"{found['queued']} runs, {found['paused']} paused")
    line("loaded", ", ".join(found["models"]) or "no model")
    line("data", found["home"])
    line("socket", found["socket"])


@worker.command()
def start() -> None:
    """Start it, if it does not run; runs that it was killed in go on.

    \b
    Example:
      softprompt-tui worker start
    """
    with started() as client:
        found = client.request(p.Status())
    older = (
        f"; it is of an older version, and makes way when run {client.making_way[:8]} is done"
        if client.making_way
        else ""
    )
    narrate(f"the worker runs: process {found['pid']}{older}")


@worker.command()
@click.option(
    "--finish",
    is_flag=True,
    help="When the run under way is done. Without it, the run is kept as it is for the next start.",
)
def stop(finish: bool) -> None:
    """End it. Nothing is lost: runs that are not over go on when it starts again.

    \b
    Examples:
      softprompt-tui worker stop
      softprompt-tui worker stop --finish
    """
    from softprompt.worker.client import WorkerGone, connect
    from softprompt.worker.leases import started as started_at

    client = connect(start=False, older=True)
    if client is None:
        narrate("no worker is running")
        return
    with client:
        pid = client.request(p.Status())["pid"]
        running = client.request(p.Shutdown(finish))["running"]
        if running and finish:
            narrate(f"it ends when run {running[:8]} is done")
            return
        try:
            for _ in client.events():  # until the line is cut
                pass
        except WorkerGone:
            pass
    until = time.monotonic() + GONE_WITHIN
    while started_at(pid) and time.monotonic() < until:  # no child of ours, so there is nothing to wait for
        time.sleep(0.02)
    narrate(
        f"the worker has ended; run {running[:8]} goes on when it starts again" if running else "the worker has ended"
    )


@worker.command()
@click.option(
    "--lines", "-n", type=click.IntRange(1, 100_000), default=40, show_default=True, help="How many of the last lines."
)
def logs(lines: int) -> None:
    """Show the end of its log.

    \b
    Example:
      softprompt-tui worker logs -n 100
    """
    try:
        with log_path().open(encoding="utf-8", errors="replace") as file:
            for text in deque(file, lines):
                click.echo(sanitize(text.rstrip("\n")))
    except FileNotFoundError:
        narrate(f"there is no log yet; it will be {log_path()}")
