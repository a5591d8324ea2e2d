"""Run folders and the queue of them: what they hold is hostile, and two hosts may share them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from softprompt.config import TrainConfig
from softprompt.errors import RunRefused, RunUnreadable
from softprompt.jobs.job import Job, SweepJob, TrainJob
from softprompt.worker import messages
from softprompt.worker import protocol as p
from softprompt.worker.leases import Holder, holder_of, newest, take_lease
from softprompt.worker.queue import Queue
from softprompt.worker.run_folder import (
    EVENTS,
    MAX_POINTS,
    SPEC,
    AnyRun,
    Run,
    RunFolder,
    all_runs,
    look,
    runs_folder,
)
from tests.conftest import FOX

JOB = TrainJob(FOX, TrainConfig(tokens=2, steps=100))
TIME = "2026-11-22T00:00:00+00:00"


@pytest.fixture
def runs(home: Path) -> Path:
    return runs_folder(home / "data")


@pytest.fixture
def queue(home: Path) -> Queue:
    return scanned(home)


def scanned(home: Path) -> Queue:
    queue = Queue(home / "data", lambda *_: None)
    list(queue.scan())
    return queue


def create(runs: Path, position: float = 1.0, job: Job = JOB) -> RunFolder:
    return RunFolder.create(runs, job, position)[0]


def write_events(folder: RunFolder, *events: Any) -> None:
    lines = [event if isinstance(event, str) else json.dumps({"at": TIME, **event}) for event in events]
    (folder.path / EVENTS).write_text("".join(f"{line}\n" for line in lines))


def tell(run: AnyRun) -> dict[str, Any]:
    """The run as a client takes it."""
    told: dict[str, Any] = p.message_of(p.encode({"type": "run", "run": messages.shown(run)}))["run"]
    return told


def change_spec(folder: RunFolder, change: Callable[[dict[str, Any]], object]) -> None:
    spec = json.loads((folder.path / SPEC).read_text())
    change(spec)
    (folder.path / SPEC).write_text(json.dumps(spec))


def set_config(**values: Any) -> Callable[[RunFolder], None]:
    return lambda folder: change_spec(folder, lambda spec: spec["job"]["config"].update(values))


def set_job(**values: Any) -> Callable[[RunFolder], None]:
    return lambda folder: change_spec(folder, lambda spec: spec["job"].update(values))


def set_spec(text: str | bytes) -> Callable[[RunFolder], None]:
    return lambda folder: (folder.path / SPEC).write_bytes(text if isinstance(text, bytes) else text.encode())  # type: ignore[func-returns-value]


def set_events(*events: Any) -> Callable[[RunFolder], None]:
    return lambda folder: write_events(folder, *events)


def put(name: str, make: Callable[[Path], object]) -> Callable[[RunFolder], None]:
    """Something else stands where a file should be."""

    def change(folder: RunFolder) -> None:
        (folder.path / name).unlink()
        make(folder.path / name)

    return change


def bind(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)
        os.close(here)


def too_long(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


QUEUED = {"event": "queued", "position": 1.0}
UNREADABLE: list[tuple[str, Callable[[RunFolder], Any], str]] = [
    (
        "a setting of a newer version",
        set_config(from_a_newer_version=1),
        "unknown settings: from_a_newer_version.*update",
    ),
    ("a format of a newer version", lambda folder: change_spec(folder, lambda spec: spec.update(format=2)), "Update"),
    ("a setting out of its bounds", set_config(steps=0), "steps is 0"),
    ("more tokens than there are numbers", set_config(tokens=10**30), "tokens is 1000"),
    (
        "a result of a sweep that is none",
        set_events(QUEUED, {"event": "done", "results": [{"tokens": 1, "similarity": "x"}]}),
        "similarity",
    ),
    ("a setting of another type", set_config(contexts=5), "contexts is 5"),
    ("a huge number", set_config(steps=10**400), "very many digits"),
    ("a number that Python does not read", set_spec(b'{"format": 1, "created": ' + b"9" * 5000 + b"}"), "spec.json"),
    ("a prompt that is none", set_job(prompt=" "), "prompt"),
    ("a name that no entry has", set_job(name="a\x1b[2J"), "name"),
    ("a spec that is a list", set_spec("[]"), "no object"),
    ("a spec that is no JSON", set_spec("{"), "spec.json"),
    ("a spec that is not UTF-8", set_spec(b'{"\xff": 1}'), "not UTF-8"),
    ("a spec nested too deeply", set_spec("[" * 100_000), "nested"),
    ("a spec of no time", lambda folder: change_spec(folder, lambda spec: spec.update(created=[1])), "time"),
    ("no spec", lambda folder: (folder.path / SPEC).unlink(), "spec.json is missing"),
    ("no events", lambda folder: (folder.path / EVENTS).unlink(), "events.jsonl is missing"),
    (
        "events of no text",
        set_events("\udcff".encode("utf-8", "surrogatepass").decode("latin-1"), "{", "[]", "[" * 9000),
        "no event says",
    ),
    ("a time that is none", set_events({**QUEUED, "at": [1]}), "time"),
    ("a position that is none", set_events({**QUEUED, "position": float("nan")}), "position is nan"),
    ("a position without a next", set_events({**QUEUED, "position": 10**400}), "very many digits"),
    ("a last report that is none", set_events(QUEUED, {"event": "done", "latest": "zzz"}), "latest is 'zzz'"),
    ("an entry that is none", set_events(QUEUED, {"event": "done", "entry": {}}), "entry is a dict"),
    ("a step that is none", set_events(QUEUED, {"event": "began", "step": True}), "step is True"),
    ("a lease that is none", set_events(QUEUED, {"event": "moved", "position": 2.0, "lease": "x"}), "lease is 'x'"),
    *(
        (f"{kind} as {name}", put(name, make), said)
        for name in (SPEC, EVENTS)
        for kind, make, said in (
            ("a pipe", os.mkfifo, "no regular file"),
            ("a folder", Path.mkdir, "no regular file"),
            ("a socket", bind, "no regular file"),
            ("a device", lambda path: path.symlink_to("/dev/zero"), "symbolic link"),
            ("far too long", too_long, "bytes, more than"),
        )
    ),
]


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
def test_a_run_that_cannot_be_read_says_why_and_harms_no_other(
    home: Path, runs: Path, change: Callable[[RunFolder], Any], said: str
) -> None:
    """It is listed between the runs to come and those that are over, the next run trains, and it can be dropped."""
    bad, good = create(runs, 1.0), create(runs, 2.0)
    change(bad)
    for read in (bad.read, bad.glance):
        with pytest.raises(RunUnreadable, match=said):
            read()
    ended = create(runs)
    ended.append({"event": "stopped"})
    assert [(run.id, run.state) for run in all_runs(runs)] == [
        (good.id, "queued"), (bad.id, "unreadable"), (ended.id, "stopped")
    ]  # fmt: skip
    queue = scanned(home)
    assert [training.folder.id for training in queue.next()] == [good.id]
    for request in (queue.stop, queue.pause, queue.resume, lambda name: queue.move(name, "")):
        with pytest.raises(RunRefused, match=f"run {bad.id} cannot be read"):
            request(bad.id)
    assert tell(queue.runs[bad.id]).keys() == tell(queue.runs[good.id]).keys()
    assert 0 < len(tell(queue.runs[bad.id])["error"]) < 400
    queue.drop(bad.id)
    assert not os.path.lexists(bad.path)


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch, lambda path: path.symlink_to("/etc")])
def test_what_has_a_runs_name_and_is_no_folder_can_be_dropped(
    home: Path, runs: Path, make: Callable[[Path], object]
) -> None:
    runs.mkdir(parents=True)
    make(runs / f"{7:016x}")
    (runs / "notes").mkdir()
    queue = scanned(home)
    assert [(run.id, run.state) for run in queue.runs.values()] == [(f"{7:016x}", "unreadable")]
    queue.drop(f"{7:016x}")
    assert [path.name for path in runs.iterdir()] == ["notes"]
    assert Path("/etc").is_dir()


def test_a_newer_worker_elsewhere_keeps_the_run_that_only_it_can_read(home: Path, runs: Path) -> None:
    folder = create(runs)
    change_spec(folder, lambda spec: spec.update(format=2))
    plant(folder, host="elsewhere")
    with pytest.raises(RunRefused, match="held by elsewhere: drop it there"):
        scanned(home).drop(folder.id)
    os.utime(folder.path / "lease.2", (0, 0))
    scanned(home).drop(folder.id)


def test_damage_that_decides_nothing_costs_no_run(runs: Path) -> None:
    folder = create(runs)
    report = {"event": "report", "step": 1, "tokens": 2, "loss": 0.5, "similarity": 0.5}
    write_events(
        folder, {**QUEUED, "position": float("nan")}, QUEUED, "torn", {"event": "began", "step": 0}, {**report, "step": "x"}, report,
        {**report, "loss": float("inf")}, {"event": "of a newer version"}, "x" * (2 << 20), {**report, "step": 2, "text": "\ud800"}, '{"at": "20',
    )  # fmt: skip
    run = folder.read()
    assert (run.state, run.position) == ("running", 1.0)
    assert [point[0] for point in run.points] == [1, 2]
    assert run.latest["text"] == "\ufffd"
    assert folder.glance() == run


def test_a_long_training_keeps_a_bounded_curve_with_its_lowest_point_and_its_last(runs: Path) -> None:
    folder = create(runs)
    steps = range(10, 10 * 3 * MAX_POINTS, 10)
    lowest = steps[1234]
    reports = [
        {"event": "report", "step": step, "tokens": 2, "loss": 0.1 if step == lowest else 1.0, "similarity": 0.5}
        for step in steps
    ]
    write_events(folder, QUEUED, {"event": "began", "step": 0}, *reports)
    points = folder.read().points
    assert MAX_POINTS // 2 <= len(points) < MAX_POINTS
    assert lowest in [step for step, *_ in points]
    assert [step for step, *_ in points] == sorted({step for step, *_ in points})
    assert points[-1][0] == steps[-1]
    write_events(
        folder, QUEUED, {"event": "began", "step": 0}, *reports, {"event": "done", "latest": {"step": steps[-1]}}
    )
    assert (folder.glance().state, folder.glance().points, folder.read().points) == ("done", (), points)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=8), parts, max_size=3),
    max_leaves=6,
)
KINDS = st.sampled_from(
    ["queued", "paused", "moved", "stopping", "pausing", "began", "report", "done", "stopped", "failed"]
)
KEYS = st.sampled_from(
    [
        "at",
        "lease",
        "position",
        "step",
        "tokens",
        "loss",
        "similarity",
        "latest",
        "results",
        "entry",
        "began",
        "restarts",
    ]
)
GOOD = {"at": TIME, "position": 1, "step": 1, "tokens": 2, "loss": 0.5, "similarity": 0.5}


@settings(max_examples=150)
@given(st.lists(st.tuples(KINDS, st.dictionaries(KEYS, JSON, max_size=2)), max_size=6))
def test_whatever_the_events_hold_a_run_comes_of_it_that_can_be_told(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, dict[str, Any]]]
) -> None:
    folder = create(tmp_path_factory.mktemp("runs"))
    write_events(folder, QUEUED, *(json.dumps({**GOOD, "event": kind, **values}) for kind, values in changes))
    run = look(folder)
    tell(run)
    assert run.state in ("queued", "running", "paused", "done", "stopped", "failed", "unreadable")
    if isinstance(run, Run):
        assert folder.read() == run
        json.dumps([run.points, dict(run.latest)], allow_nan=False)


def test_events_of_today_and_of_before_are_read_alike(runs: Path) -> None:
    """Events without a lease's number come from older versions."""
    folder = create(runs)
    write_events(folder, QUEUED, {"event": "began", "step": 0}, {"event": "pausing"}, {"event": "paused"})
    assert (folder.read().state, folder.read().lease) == ("paused", 0)
    folder.append({"event": "queued"}, 2)
    folder.append({"event": "moved", "position": 4.0})
    assert (folder.read().state, folder.read().position, folder.read().lease) == ("queued", 4.0, 2)


# leases


def plant(folder: RunFolder, **changes: Any) -> None:
    """A newer lease, of another holder."""
    holder = replace(Holder.me(), **changes)
    (folder.path / f"lease.{newest(folder.path) + 1}").write_text(json.dumps(asdict(holder)))


def dead() -> dict[str, Any]:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return {"pid": child.pid, "started": "1"}


def test_a_worker_that_lost_its_lease_changes_nothing_any_more(home: Path, runs: Path) -> None:
    """Two queues on one home: the run is taken from the first while it trains, and both write on."""
    first = scanned(home)
    run = first.submit(JOB, b"")
    (training,) = first.next()
    for event in (
        {"event": "began", "step": 0},
        {"event": "report", "step": 10, "tokens": 2, "loss": 0.5, "similarity": 0.5},
    ):
        first.record(run.id, training.folder.append(event, training.lease.number))
    second = scanned(home)
    taken = second.pause(run.id)
    assert (taken.state, newest(training.folder.path)) == ("paused", 2)
    for late in (
        {"event": "moved", "position": 9.0},
        {"event": "failed", "error": "late", "lease": 1},
        {"event": "done", "entry": "x"},
    ):
        training.folder.append(late, training.lease.number)
    assert (training.folder.read().state, training.folder.glance().state) == ("paused", "paused")
    assert training.folder.read().position == run.position
    first.renew()
    assert training.stop_request == "leave"
    first.ended(run.id, training.folder.stamped({"event": "done", "entry": "x"}, 1))
    assert first.runs[run.id].state == "paused"
    second.resume(run.id)
    assert [taken.lease.number for taken in second.next()] == [2]


def test_the_late_end_of_a_lost_run_is_not_believed_though_only_the_end_of_the_file_is_looked_at(runs: Path) -> None:
    folder = create(runs)
    take_lease(folder.path)
    folder.append({"event": "paused"}, 2)
    for step in range(200):
        folder.append({"event": "report", "step": step, "tokens": 2, "loss": 0.5, "similarity": 0.5}, 1, durable=False)
    folder.append({"event": "done", "entry": "x"}, 1)
    assert folder.glance().state == "paused"


def test_waiting_runs_cost_no_lease_until_they_are_trained_or_changed(home: Path, runs: Path) -> None:
    folders = [create(runs, float(i)) for i in range(8)]
    gone = dead()
    for folder in folders:
        plant(folder, **gone)
    queue = scanned(home)
    assert {newest(folder.path) for folder in folders} == {2}
    queue.pause(folders[1].id)
    queue.stop(folders[2].id)
    queue.move(folders[3].id, before=folders[0].id)
    queue.drop(folders[4].id)
    assert [newest(folder.path) for folder in folders if folder.path.exists()] == [3, 3, 3, 3, 2, 2, 2]
    trained = [training.folder for training in queue.next()]
    assert [folder.id for folder in trained] == [folders[i].id for i in (3, 0, 5, 6, 7)]
    assert {newest(folder.path) for folder in trained} == {3}
    for folder in trained:
        assert holder_of(folder.path) == Holder.me()


def test_the_worker_of_a_host_speaks_for_all_its_waiting_runs(
    home: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other hosts see by one file that it lives; where it is silent, they may take a run over when they are asked to."""
    here = scanned(home)
    run = here.submit(JOB, b"")
    os.utime(runs / run.id / "lease.1", (0, 0))
    here.renew()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    there = scanned(home)
    for request in (there.stop, there.pause, there.drop, lambda name: there.move(name, "")):
        with pytest.raises(RunRefused, match="held by"):
            request(run.id)
    assert there.next() == []
    with pytest.raises(RunRefused, match="was heard of less than 120 seconds ago"):
        there.resume(run.id)
    (sign,) = runs.glob(".worker-*")
    os.utime(sign, (0, 0))
    assert there.resume(run.id).state == "queued"
    monkeypatch.undo()
    assert here.next() == []
    with pytest.raises(RunRefused, match="held by elsewhere"):
        here.pause(run.id)


OTHER_HOST = """
import socket, sys
socket.gethostname = lambda: "elsewhere"
from pathlib import Path
from softprompt.errors import SoftPromptError
from softprompt.worker.queue import Queue
queue = Queue(Path(sys.argv[1]), lambda changed, gone: None)
list(queue.scan())
print("ready", flush=True)
for line in sys.stdin:
    action, run = line.split()
    try:
        print({"resume": queue.resume}[action](run).state, flush=True)
    except SoftPromptError:
        print("refused", flush=True)
"""


def test_of_two_hosts_that_take_the_same_runs_at_once_each_run_has_one(home: Path, runs: Path) -> None:
    """The other one is a process that takes over what it has not heard of for long, while this one trains or changes it."""
    folders = [create(runs, float(i)) for i in range(24)]
    for folder in folders:
        os.utime(folder.path / "lease.1", (0, 0))
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_HOST, str(home / "data")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    queue = scanned(home)
    queue._leases.clear()  # as another process of this host would find them
    assert other.stdout.readline() == "ready\n"
    other.stdin.write("".join(f"resume {folder.id}\n" for folder in folders))
    other.stdin.flush()
    here = set()
    for i, folder in enumerate(reversed(folders)):
        request = (queue.pause, queue.stop, lambda name: queue.move(name, ""))[i % 3]
        try:
            request(folder.id)
            here.add(folder.id)
        except RunRefused:
            pass
    there = {folder.id for folder in folders if other.stdout.readline() == "queued\n"}
    other.stdin.close()
    other.wait(30)
    other.stdout.close()
    assert not here & there
    assert here | there == {folder.id for folder in folders}
    for folder in folders:
        holder = holder_of(folder.path)
        assert holder is not None
        assert (holder.host == "elsewhere") == (folder.id in there)
        assert folder.read().lease == newest(folder.path) == 2


def test_a_failed_run_is_either_tried_again_or_dropped(home: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = create(runs)
    folder.append({"event": "failed", "error": "x"}, 1)
    here, there = scanned(home), scanned(home)
    here.resume(folder.id)
    with pytest.raises(RunRefused, match="is queued by now: look again"):
        there.drop(folder.id)
    assert folder.read().state == "queued"


# one owner


def test_any_number_of_moves_into_one_gap_keeps_the_order_and_changes_few_others(home: Path, queue: Queue) -> None:
    runs = [queue.submit(JOB, b"").id for _ in range(12)]
    order = list(runs)
    for i in range(100):
        moved, before = order[-1 - i % 2], order[5]
        queue.move(moved, before)
        order.remove(moved)
        order.insert(order.index(before), moved)
        waiting = sorted(queue.runs.values(), key=lambda run: run.position)
        assert [run.id for run in waiting] == order
    assert len({run.position for run in queue.runs.values()}) == 12
    assert [run.id for run in all_runs(queue.folder)] == order


def test_a_run_that_the_trainer_has_just_been_given_waits_no_more(queue: Queue) -> None:
    """It counts as training even before the trainer reports that it began."""
    first, second = (queue.submit(SweepJob(prompt, JOB.config, sweep=(1,)), b"").id for prompt in ("a fox", "a boat"))
    (training,) = queue.next()
    third = queue.submit(JOB, b"").id
    queue.move(third, before=second)
    assert [run.id for run in all_runs(queue.folder)] == [first, third, second]
    for moved, before in ((first, second), (first, ""), (second, first)):
        with pytest.raises(RunRefused, match=f"run {first} is training"):
            queue.move(moved, before)
    with pytest.raises(RunRefused, match="is training: stop or pause it first"):
        queue.drop(first)
    queue.pause(first)
    assert training.stop_request == "pause"
    assert queue.next() == []


def test_a_planted_position_takes_no_places_from_others(home: Path, runs: Path) -> None:
    folder = create(runs, 2.0**52)
    queue = scanned(home)
    positions = [queue.submit(JOB, b"").position for _ in range(3)]
    assert positions == [1.0, 2.0, 3.0]
    queue.move(folder.id, before="")
    assert queue.runs[folder.id].position == 4.0


def test_a_folder_that_goes_or_comes_back_is_told(home: Path, runs: Path) -> None:
    changes: list[tuple[list[str], list[str]]] = []
    queue = Queue(home / "data", lambda changed, gone: changes.append(([run.state for run in changed], list(gone))))
    folder = create(runs)
    list(queue.scan())
    away = runs.with_name("away")
    folder.path.rename(away)
    list(queue.scan())
    away.rename(folder.path)
    folder.append({"event": "failed", "error": "x"})
    list(queue.scan())
    list(queue.scan())
    assert [change for change in changes if any(change)] == [(["queued"], []), ([], [folder.id]), (["failed"], [])]
