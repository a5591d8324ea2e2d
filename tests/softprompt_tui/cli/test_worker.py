"""Training in the background from the command line: a real worker, real terminals."""

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
from collections.abc import Callable, Iterator
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


@pytest.fixture
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    made = Home(monkeypatch.setenv)
    yield made
    made.close()


def on_a_terminal(*args: str) -> tuple[subprocess.Popen[bytes], int]:
    """A command whose stdin and stderr are a terminal of 80 columns, and that terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "softprompt_tui", *args], stdin=slave, stdout=subprocess.PIPE, stderr=slave,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"}, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    return process, master


def seen_until(master: int, pattern: str, within: float = 60) -> str:
    seen, end = "", time.monotonic() + within
    while not re.search(pattern, seen):
        assert select.select([master], [], [], max(0, end - time.monotonic()))[0], (
            f"{pattern} not there after {within} s: {seen}"
        )
        seen += os.read(master, 4096).decode(errors="replace")
    return seen


def test_a_training_in_the_background_is_listed_attached_to_and_stopped(worker: Home, run: Run) -> None:
    begun = run("train", FOX, "-k", "2", "--steps", "50000", "--no-contexts", "--name", "fox", "--background")
    assert begun.returncode == 0, begun.stderr
    (first,) = begun.stdout.split()
    assert f"softprompt-tui attach {first[:6]}" in begun.stderr
    second = json.loads(run("train", BOAT, "-k", "1", "--steps", "30", "--background", "--json").stdout)["id"]

    process, master = on_a_terminal("attach", first[:8])
    shown = seen_until(master, r"┤[^/]*\d+/50000  loss \d[^\n]* left")
    assert re.search("[\u2801-\u28ff]", shown)  # the curve
    process.send_signal(signal.SIGINT)
    assert "detached; the training goes on" in seen_until(master, "detached[^\n]*\n")
    assert process.wait() == 0
    os.close(master)
    process.stdout.close()  # type: ignore[union-attr]

    listed = {one["id"]: one for one in json.loads(run("runs", "--json").stdout)}
    assert (listed[first]["state"], listed[second]["state"], listed[first]["prompt"]) == ("running", "queued", FOX)
    assert (listed[first]["place"], listed[second]["place"]) == (None, 1)
    table = run("runs")
    rows = [line.split() for line in table.stdout.splitlines()]
    assert rows[0][:4] == ["run", "state", "kind", "step"]
    assert rows[1][1:3] == ["running", "train"]
    assert rows[2][1:4] == ["queued", "1", "train"]
    assert table.stderr == f"1 run waits behind {first[:8]} (fox)\n"
    assert json.loads(run("worker", "status", "--json").stdout)["running"] == first

    stopped = run("stop", first[:8])
    assert stopped.returncode == 0, stopped.stderr
    assert "interrupted" in stopped.stdout
    attached = json.loads(run("attach", second, "--json").stdout)
    assert (attached["id"], attached["steps"]) == (second, 30)
    assert {one.id for one in Library().list().entries} == {first, second}
    assert "worker" in run("worker", "logs").stdout or "started for" in run("worker", "logs").stdout
    assert run("worker", "stop").stderr == "the worker has ended\n"
    assert run("worker", "status").returncode == 1
    assert run("worker", "stop").stderr == "no worker is running\n"


def test_the_worker_makes_way_for_who_types(worker: Home, run: Run) -> None:
    run("train", FOX, "-k", "1", "--steps", "50000", "--no-contexts", "--background")
    with worker.client() as client:
        training = client.request(p.Status())["running"]
        wait_for_run(client, training, lambda one: one["state"] == "running")
    pid = worker.pid()
    assert pid is not None
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    wait_until(lambda: len(list(Path(f"/proc/{pid}/task").iterdir())) > 2, 60)  # torch is there
    assert nicenesses(pid) == {usual or WORKER_NICENESS}
    autogroup = Path(f"/proc/{pid}/autogroup")  # of the session, where the kernel has such
    assert usual or not autogroup.exists() or autogroup.read_text().split()[-2:] == ["nice", f"{WORKER_NICENESS}"]


def test_waiting_runs_are_moved_paused_resumed_and_dropped(worker: Home, run: Run) -> None:
    runs = [
        run("train", FOX, "-k", "1", "--steps", "50000", "--no-contexts", "--background").stdout.strip()
        for _ in range(3)
    ]
    run("runs", "move", runs[2], "--before", runs[1])
    assert [one["id"] for one in json.loads(run("runs", "--json").stdout)] == [runs[0], runs[2], runs[1]]
    assert run("runs", "pause", runs[1]).returncode == 0
    assert json.loads(run("runs", "--json").stdout)[2]["state"] == "paused"
    assert run("runs", "resume", runs[1]).returncode == 0
    assert run("runs", "drop", runs[2]).returncode == 0
    assert [one["id"] for one in json.loads(run("runs", "--json").stdout)] == [runs[0], runs[1]]
    done = run("runs", "drop", runs[0])
    assert done.returncode == 2
    assert "is training: stop or pause it first" in done.stderr
    assert run("attach", "nothing").returncode == 2
    assert run("stop", runs[1]).stderr.endswith("had not started, so there is nothing to save\n")
    said = run("worker", "stop").stderr
    assert f"run {runs[0][:8]} continues when it starts again" in said
    assert "No worker is running" in run("runs").stderr


def test_what_another_host_trains_is_listed_and_waited_for_by_nothing_here(worker: Home, run: Run) -> None:
    there, here = (RunFolder.create(runs_folder(), TrainJob(prompt), 1.0)[0] for prompt in ("a lake", FOX))
    there.append({"event": "began", "step": 0})
    (there.path / "lease.2").write_text(
        json.dumps(asdict(replace(Holder.this_process(), host="elsewhere", boot="another")))
    )
    listed = run("runs")
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [
        [there.id[:8], "running"],
        [here.id[:8], "queued"],
    ]
    assert listed.stderr == "No worker is running. `softprompt-tui worker start` continues the queue.\n"
    assert {one["id"]: one["place"] for one in json.loads(run("runs", "--json").stdout)} == {there.id: None, here.id: 1}


def test_a_run_that_cannot_be_read_is_listed_with_its_whole_id_and_reason_and_dropped(worker: Home, run: Run) -> None:
    """Beside others of the same first letters; the worker lists it too, and trains the next one."""
    good = run("train", FOX, "-k", "1", "--steps", "3", "--background").stdout.strip()
    unreadable = [f"{good[:8]}{i:08x}" for i in range(2)]
    for name in unreadable:
        (runs_folder() / name).mkdir()
        os.mkfifo(runs_folder() / name / "spec.json")
    listed = run("runs")
    assert (listed.returncode, listed.stdout.count("events.jsonl is missing")) == (0, 2)
    assert all(f"{name}  unreadable" in listed.stdout for name in (*unreadable,))
    assert f"`softprompt-tui runs drop {unreadable[0]}` removes the unreadable run" in listed.stderr.replace(
        unreadable[1], unreadable[0]
    )
    states = {one["id"]: (one["state"], one["error"]) for one in json.loads(run("runs", "--json").stdout)}
    assert states[unreadable[0]] == ("unreadable", "events.jsonl is missing")
    run("worker", "stop")  # the next one finds them when it starts
    assert json.loads(run("attach", good, "--json").stdout)["id"] == good
    with worker.client() as client:
        assert {one["id"] for one in client.runs if one["state"] == "unreadable"} == set(unreadable)
    assert "is unreadable" in run("attach", unreadable[0]).stderr
    for name in unreadable:
        assert run("runs", "drop", name).returncode == 0
    assert [one["id"] for one in json.loads(run("runs", "--json").stdout)] == [good]


def test_a_run_of_a_worker_that_does_not_tell_its_kind_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    report = RunReport("3f2a", 20, 2, loss=0.25, similarity=0.75, steps_per_second=10.0)
    with LiveCurve() as curve:
        curve.begin(RunSummary.from_message({"id": "3f2a", "state": "running", "tokens": 2, "steps": 30}), [])
        curve.add_report(report)
        assert curve._status_line() == "20/30  loss 0.2500  similarity 0.7500  10/s  1 s left"


@pytest.mark.parametrize(
    ("args", "said"),
    [((FOX, "-k", "76"), "mini has room for 75"), (("fox " * 80,), "the prompt has 80 tokens, but mini takes 75"),
     ((FOX, "--hard", "--hard-tokens", "64", "-k", "80"), "room for 75"), (("",), "the prompt is empty"),
     ((FOX, "--objective", "contrastive", "--against", "fox " * 80), "80 tokens do not fit: mini takes at most 75"),
     ((FOX, "--device", "cuda:²"), "device is 'cuda:²'; it must be auto, cpu, cuda, cuda:1 or mps"),
     ((FOX, "-k", "1" + "0" * 30), "it must be a whole number from 1 to 4,096"), ((FOX, "--model", "local-dir:/nowhere"), "no folder /nowhere"),
     ((FOX, "--model", "local-dir:" + __file__), "there is no folder")],
)  # fmt: skip
def test_what_has_no_room_is_refused_before_anything_is_queued(
    worker: Home, run: Run, args: tuple[str, ...], said: str
) -> None:
    done = run("train", *args, "--background")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert json.loads(run("runs", "--json").stdout) == []
    assert worker.pid() is None  # nothing was started for it
    assert run("train", *args).stderr == done.stderr  # and nothing is loaded


def test_an_older_worker_is_told_and_stopped_at_once(worker: Home, run: Run, nursery: Nursery) -> None:
    worker.start_older_worker(nursery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(p, "PROTOCOL", p.PROTOCOL - 1)
        first, second = (worker.submit(FOX, tokens=2, steps=50_000, contexts=()) for _ in range(2))
    status = run("worker", "status")
    assert "It ends when its run is done" in status.stdout
    assert f"ends when run {first[:8]} is done" in run("worker", "start").stderr
    process, master = on_a_terminal("attach", second)  # waits for its turn, and goes on with the next worker
    seen_until(master, "waiting for its turn")
    assert "interrupted" in run("stop", first).stdout
    seen_until(master, r"\d+/50000  loss")
    process.kill()
    process.communicate()
    os.close(master)
    assert run("worker", "stop").stderr.startswith("the worker has ended; run")


def test_an_older_worker_is_ended_at_once(worker: Home, run: Run, nursery: Nursery) -> None:
    worker.start_older_worker(nursery)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(p, "PROTOCOL", p.PROTOCOL - 1)
        first = worker.submit(FOX, tokens=2, steps=50_000, contexts=())
    assert f"run {first[:8]} continues when it starts again" in run("worker", "stop").stderr
    wait_until(lambda: worker.pid() is None)


def test_foreground_and_background_come_to_the_same_bits(worker: Home, run: Run) -> None:
    settings = (FOX, "-k", "2", "--steps", "15", "--device", "cpu", "--json")
    here = json.loads(run("train", *settings).stdout)
    there = json.loads(run("attach", json.loads(run("train", *settings, "--background").stdout)["id"], "--json").stdout)
    library = Library()
    assert library.open(here["id"]).prompt.vectors.tobytes() == library.open(there["id"]).prompt.vectors.tobytes()
    assert (here["similarity"], here["readout_text"]) == (there["similarity"], there["readout_text"])
