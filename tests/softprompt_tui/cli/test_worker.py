"""Background training from the command line, with a real worker and real terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from softprompt import Library
from softprompt.jobs.job import TrainJob
from softprompt.system.priority import WORKER_NICENESS
from softprompt.worker import protocol as p
from softprompt.worker.leases import Holder
from softprompt.worker.run_folder import RunFolder, runs_folder
from softprompt.worker.summary import RunReport, RunSummary
from softprompt_tui.cli.follow import LiveCurve
from tests.conftest import BOAT, FOX
from tests.nursery import Nursery
from tests.worker_process import Home, nicenesses, wait_for_run, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]


def start_on_terminal(*args: str) -> tuple[subprocess.Popen[bytes], int]:
    """Start a command whose stdin and stderr are an 80-column terminal. Return the process and the terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "softprompt_tui", *args],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
        start_new_session=True,
    )
    os.close(slave)
    return process, master


def read_until(master: int, pattern: str, timeout: float = 60) -> str:
    output, end = "", time.monotonic() + timeout
    while not re.search(pattern, output):
        assert select.select([master], [], [], max(0, end - time.monotonic()))[0], (
            f"{pattern} not printed after {timeout} s: {output}"
        )
        output += os.read(master, 4096).decode(errors="replace")
    return output


def test_background_trainings_are_listed_attached_to_and_stopped(worker: Home, run: Run) -> None:
    started = run("train", FOX, "-k", "2", "--steps", "50000", "--no-contexts", "--name", "fox", "--background")
    assert started.returncode == 0, started.stderr
    (first_id,) = started.stdout.split()
    assert f"softprompt-tui attach {first_id[:6]}" in started.stderr
    second_id = json.loads(run("train", BOAT, "-k", "1", "--steps", "30", "--background", "--json").stdout)["id"]

    process, master = start_on_terminal("attach", first_id[:8])
    screen = read_until(master, r"┤[^/]*\d+/50000  loss \d[^\n]* left")
    assert re.search("[\u2801-\u28ff]", screen)  # the curve
    status = run("worker", "status").stdout
    assert "1 other client\n" in status
    assert "1 run, 0 paused" in status
    process.send_signal(signal.SIGINT)
    assert "detached; the training goes on" in read_until(master, "detached[^\n]*\n")
    assert process.wait() == 0
    os.close(master)
    process.stdout.close()  # type: ignore[union-attr]

    summary_by_id = {summary["id"]: summary for summary in json.loads(run("runs", "--json").stdout)}
    assert (summary_by_id[first_id]["state"], summary_by_id[second_id]["state"], summary_by_id[first_id]["prompt"]) == (
        "running",
        "queued",
        FOX,
    )
    assert (summary_by_id[first_id]["place"], summary_by_id[second_id]["place"]) == (None, 1)
    table = run("runs")
    rows = [line.split() for line in table.stdout.splitlines()]
    assert rows[0][:4] == ["run", "state", "kind", "step"]
    assert rows[1][1:3] == ["running", "train"]
    assert rows[2][1:4] == ["queued", "1", "train"]
    assert table.stderr == f"1 run waits behind {first_id[:8]} (fox)\n"
    assert json.loads(run("worker", "status", "--json").stdout)["running"] == first_id

    stopped = run("stop", first_id[:8])
    assert stopped.returncode == 0, stopped.stderr
    assert "interrupted" in stopped.stdout
    attached = json.loads(run("attach", second_id, "--json").stdout)
    assert (attached["id"], attached["steps"]) == (second_id, 30)
    assert {entry.id for entry in Library().list().entries} == {first_id, second_id}
    assert "worker" in run("worker", "logs").stdout or "started for" in run("worker", "logs").stdout
    assert run("worker", "stop").stderr == "the worker has ended\n"
    assert run("worker", "status").returncode == 1
    assert run("worker", "stop").stderr == "no worker is running\n"


def test_the_worker_lowers_its_priority(worker: Home, run: Run) -> None:
    run("train", FOX, "-k", "1", "--steps", "50000", "--no-contexts", "--background")
    with worker.client() as client:
        run_id = client.request(p.Status())["running"]
        wait_for_run(client, run_id, lambda summary: summary["state"] == "running")
    pid = worker.pid()
    assert pid is not None
    own_niceness = os.getpriority(os.PRIO_PROCESS, 0)
    wait_until(lambda: len(list(Path(f"/proc/{pid}/task").iterdir())) > 2, 60)  # torch has started its threads
    assert nicenesses(pid) == {own_niceness or WORKER_NICENESS}
    autogroup = Path(f"/proc/{pid}/autogroup")  # the session's priority, if the kernel has autogroups
    assert (
        own_niceness or not autogroup.exists() or autogroup.read_text().split()[-2:] == ["nice", f"{WORKER_NICENESS}"]
    )


def test_queued_runs_are_moved_paused_resumed_and_dropped(worker: Home, run: Run) -> None:
    run_ids = [
        run("train", FOX, "-k", "1", "--steps", "50000", "--no-contexts", "--background").stdout.strip()
        for _ in range(3)
    ]
    run("runs", "move", run_ids[2], "--before", run_ids[1])
    assert [summary["id"] for summary in json.loads(run("runs", "--json").stdout)] == [
        run_ids[0],
        run_ids[2],
        run_ids[1],
    ]
    assert run("runs", "pause", run_ids[1]).returncode == 0
    assert json.loads(run("runs", "--json").stdout)[2]["state"] == "paused"
    assert run("runs", "resume", run_ids[1]).returncode == 0
    assert run("runs", "drop", run_ids[2]).returncode == 0
    assert [summary["id"] for summary in json.loads(run("runs", "--json").stdout)] == [run_ids[0], run_ids[1]]
    assert run("runs", "restore", run_ids[2][:8]).stderr.endswith("is back\n")
    assert [summary["id"] for summary in json.loads(run("runs", "--json").stdout)] == [
        run_ids[0],
        run_ids[2],
        run_ids[1],
    ]
    assert run("runs", "restore", run_ids[2]).returncode == 2
    result = run("runs", "drop", run_ids[0])
    assert result.returncode == 2
    assert "is training: stop or pause it first" in result.stderr
    assert run("attach", "nothing").returncode == 2
    assert run("stop", run_ids[1]).stderr.endswith("had not started, so there is nothing to save\n")
    message = run("worker", "stop").stderr
    assert f"run {run_ids[0][:8]} continues when it starts again" in message
    assert "No worker is running" in run("runs").stderr


def test_a_run_on_another_host_is_listed_and_blocks_no_run_here(worker: Home, run: Run) -> None:
    remote_run, local_run = (RunFolder.create(runs_folder(), TrainJob(prompt), 1.0)[0] for prompt in ("a lake", FOX))
    remote_run.append({"event": "began", "step": 0})
    (remote_run.path / "lease.2").write_text(
        json.dumps(asdict(replace(Holder.this_process(), host="elsewhere", boot="another")))
    )
    table = run("runs")
    assert [line.split()[:2] for line in table.stdout.splitlines()[1:]] == [
        [remote_run.id[:8], "running"],
        [local_run.id[:8], "queued"],
    ]
    assert table.stderr == "No worker is running. `softprompt-tui worker start` continues the queue.\n"
    assert {summary["id"]: summary["place"] for summary in json.loads(run("runs", "--json").stdout)} == {
        remote_run.id: None,
        local_run.id: 1,
    }


def test_an_unreadable_run_is_listed_with_its_full_id_and_the_reason_and_can_be_dropped(worker: Home, run: Run) -> None:
    """All ids start with the same 8 characters. The worker lists unreadable runs too, and still trains the good one."""
    good_id = run("train", FOX, "-k", "1", "--steps", "3", "--background").stdout.strip()
    bad_ids = [f"{good_id[:8]}{i:08x}" for i in range(2)]
    for run_id in bad_ids:
        (runs_folder() / run_id).mkdir()
        os.mkfifo(runs_folder() / run_id / "spec.json")
    table = run("runs")
    assert (table.returncode, table.stdout.count("events.jsonl is missing")) == (0, 2)
    assert all(f"{run_id}  unreadable" in table.stdout for run_id in (*bad_ids,))
    assert f"`softprompt-tui runs drop {bad_ids[0]}` removes the unreadable run" in table.stderr.replace(
        bad_ids[1], bad_ids[0]
    )
    states = {
        summary["id"]: (summary["state"], summary["error"]) for summary in json.loads(run("runs", "--json").stdout)
    }
    assert states[bad_ids[0]] == ("unreadable", "events.jsonl is missing")
    run("worker", "stop")  # the next worker finds the unreadable runs when it starts
    assert json.loads(run("attach", good_id, "--json").stdout)["id"] == good_id
    with worker.client() as client:
        assert {summary["id"] for summary in client.runs if summary["state"] == "unreadable"} == set(bad_ids)
    assert "is unreadable" in run("attach", bad_ids[0]).stderr
    for run_id in bad_ids:
        assert run("runs", "drop", run_id).returncode == 0
    assert [summary["id"] for summary in json.loads(run("runs", "--json").stdout)] == [good_id]


def test_a_run_without_a_kind_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    report = RunReport("3f2a", 20, 2, loss=0.25, similarity=0.75, steps_per_second=10.0)
    with LiveCurve() as curve:
        curve.begin(RunSummary.from_message({"id": "3f2a", "state": "running", "tokens": 2, "steps": 30}), [])
        curve.add_report(report)
        assert curve._status_line() == "20/30  loss 0.2500  similarity 0.7500  10/s  1 s left"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((FOX, "-k", "76"), "mini has room for 75"),
        (("fox " * 80,), "the prompt has 80 tokens, but mini has room for 75"),
        ((FOX, "--hard", "--hard-tokens", "64", "-k", "80"), "room for 75"),
        (("",), "the prompt is empty"),
        ((FOX, "--objective", "contrastive", "--against", "fox " * 80), "80 tokens do not fit: mini has room for 75"),
        ((FOX, "--device", "cuda:²"), "device is 'cuda:²'; it must be auto, cpu, cuda, cuda:1 or mps"),
        ((FOX, "-k", "1" + "0" * 30), "it must be a whole number from 1 to 4,096"),
        ((FOX, "--model", "local-dir:/nowhere"), "no folder /nowhere"),
        ((FOX, "--model", "local-dir:" + __file__), "there is no folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_queued(
    worker: Home, run: Run, args: tuple[str, ...], message: str
) -> None:
    result = run("train", *args, "--background")
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert json.loads(run("runs", "--json").stdout) == []
    assert worker.pid() is None  # no worker was started
    assert run("train", *args).stderr == result.stderr  # the same message without --background


def test_an_older_worker_is_reported_and_the_next_worker_continues_its_queue(
    worker: Home, run: Run, nursery: Nursery
) -> None:
    worker.start_older_worker(nursery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(p, "PROTOCOL", p.PROTOCOL - 1)
        first_id, second_id = (worker.submit(FOX, tokens=2, steps=50_000, contexts=()) for _ in range(2))
    status = run("worker", "status")
    assert "It ends when its run is done" in status.stdout
    assert f"ends when run {first_id[:8]} is done" in run("worker", "start").stderr
    process, master = start_on_terminal("attach", second_id)  # waits for its turn, and continues with the next worker
    read_until(master, "waiting for its turn")
    assert "interrupted" in run("stop", first_id).stdout
    read_until(master, r"\d+/50000  loss")
    process.kill()
    process.communicate()
    os.close(master)
    assert run("worker", "stop").stderr.startswith("the worker has ended; run")


def test_worker_stop_ends_an_older_worker_immediately(worker: Home, run: Run, nursery: Nursery) -> None:
    worker.start_older_worker(nursery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(p, "PROTOCOL", p.PROTOCOL - 1)
        first_id = worker.submit(FOX, tokens=2, steps=50_000, contexts=())
    assert f"run {first_id[:8]} continues when it starts again" in run("worker", "stop").stderr
    wait_until(lambda: worker.pid() is None)


def test_foreground_and_background_trainings_are_bit_identical(worker: Home, run: Run) -> None:
    settings = (FOX, "-k", "2", "--steps", "15", "--device", "cpu", "--json")
    foreground = json.loads(run("train", *settings).stdout)
    background = json.loads(
        run("attach", json.loads(run("train", *settings, "--background").stdout)["id"], "--json").stdout
    )
    library = Library()
    assert (
        library.open(foreground["id"]).prompt.vectors.tobytes()
        == library.open(background["id"]).prompt.vectors.tobytes()
    )
    assert (foreground["similarity"], foreground["readout_text"]) == (
        background["similarity"],
        background["readout_text"],
    )
