"""Tests of run folders and the queue: the files may be hostile, and two hosts may share them."""

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
from softprompt.worker.leases import Holder, newest_lease, read_holder, take_lease
from softprompt.worker.queue import Queue
from softprompt.worker.run_folder import (
    EVENTS,
    MAX_POINTS,
    SPEC,
    AnyRun,
    Run,
    RunFolder,
    list_folders,
    list_runs,
    load_run,
    purge_dropped,
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
    return create_queue(home)


def create_queue(home: Path) -> Queue:
    queue = Queue(home / "data", lambda *_: None)
    list(queue.scan())
    return queue


def create(runs: Path, position: float = 1.0, job: Job = JOB) -> RunFolder:
    return RunFolder.create(runs, job, position)[0]


def write_events(folder: RunFolder, *events: Any) -> None:
    lines = [event if isinstance(event, str) else json.dumps({"at": TIME, **event}) for event in events]
    (folder.path / EVENTS).write_text("".join(f"{line}\n" for line in lines))


def as_client_sees(run: AnyRun) -> dict[str, Any]:
    """Return a run as a client receives it."""
    values: dict[str, Any] = p.parse_message(p.encode({"type": "run", "run": messages.describe_run(run)}))["run"]
    return values


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


def replace_file(name: str, make: Callable[[Path], object]) -> Callable[[RunFolder], None]:
    """Return a change that puts something else in place of a file."""

    def change(folder: RunFolder) -> None:
        (folder.path / name).unlink()
        make(folder.path / name)

    return change


def bind_socket(path: Path) -> None:
    previous_folder = os.open(".", os.O_RDONLY)
    os.chdir(path.parent)  # the full path is too long for a socket
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(previous_folder)
        os.close(previous_folder)


def create_huge_file(path: Path) -> None:
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
    ("a setting out of range", set_config(steps=0), "steps is 0"),
    ("a huge number of tokens", set_config(tokens=10**30), "tokens is 1000"),
    (
        "an invalid sweep result",
        set_events(QUEUED, {"event": "done", "results": [{"tokens": 1, "similarity": "x"}]}),
        "similarity",
    ),
    ("a setting of the wrong type", set_config(contexts=5), "contexts is 5"),
    ("a huge number", set_config(steps=10**400), "very long number"),
    ("a number too long for Python", set_spec(b'{"format": 1, "created": ' + b"9" * 5000 + b"}"), "spec.json"),
    ("an empty prompt", set_job(prompt=" "), "prompt"),
    ("a name with control characters", set_job(name="a\x1b[2J"), "name"),
    ("a spec that is a list", set_spec("[]"), "not an object"),
    ("a spec that is not JSON", set_spec("{"), "spec.json"),
    ("a spec that is not UTF-8", set_spec(b'{"\xff": 1}'), "not UTF-8"),
    ("a spec nested too deeply", set_spec("[" * 100_000), "nested"),
    ("a spec without a valid time", lambda folder: change_spec(folder, lambda spec: spec.update(created=[1])), "time"),
    ("no spec", lambda folder: (folder.path / SPEC).unlink(), "spec.json is missing"),
    ("no events", lambda folder: (folder.path / EVENTS).unlink(), "events.jsonl is missing"),
    (
        "events without valid lines",
        set_events("\udcff".encode("utf-8", "surrogatepass").decode("latin-1"), "{", "[]", "[" * 9000),
        "no valid event sets the run's state",
    ),
    ("an invalid time", set_events({**QUEUED, "at": [1]}), "time"),
    ("a position that is not a number", set_events({**QUEUED, "position": float("nan")}), "position is nan"),
    ("a huge position", set_events({**QUEUED, "position": 10**400}), "very long number"),
    ("an invalid latest report", set_events(QUEUED, {"event": "done", "latest": "zzz"}), "latest is 'zzz'"),
    ("an invalid entry", set_events(QUEUED, {"event": "done", "entry": {}}), "entry is a dict"),
    ("an invalid step", set_events(QUEUED, {"event": "began", "step": True}), "step is True"),
    ("an invalid lease", set_events(QUEUED, {"event": "moved", "position": 2.0, "lease": "x"}), "lease is 'x'"),
    *(
        (f"{kind} as {name}", replace_file(name, make), message)
        for name in (SPEC, EVENTS)
        for kind, make, message in (
            ("a pipe", os.mkfifo, "not a regular file"),
            ("a folder", Path.mkdir, "not a regular file"),
            ("a socket", bind_socket, "not a regular file"),
            ("a device", lambda path: path.symlink_to("/dev/zero"), "symbolic link"),
            ("a huge file", create_huge_file, "bytes; at most"),
        )
    ),
]


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in UNREADABLE], ids=[case[0] for case in UNREADABLE])
def test_an_unreadable_run_shows_the_reason_and_affects_no_other_run(
    home: Path, runs: Path, change: Callable[[RunFolder], Any], message: str
) -> None:
    """It is listed between the unfinished and the ended runs, the next run trains, and the user can drop it."""
    bad, good = create(runs, 1.0), create(runs, 2.0)
    change(bad)
    for read in (bad.read, bad.peek):
        with pytest.raises(RunUnreadable, match=message):
            read()
    ended = create(runs)
    ended.append({"event": "stopped"})
    assert [(run.id, run.state) for run in list_runs(runs)] == [
        (good.id, "queued"), (bad.id, "unreadable"), (ended.id, "stopped")
    ]  # fmt: skip
    queue = create_queue(home)
    assert [active.folder.id for active in queue.take_next_batch()] == [good.id]
    for request in (queue.stop, queue.pause, queue.resume, lambda run_id: queue.move(run_id, "")):
        with pytest.raises(RunRefused, match=f"run {bad.id} is unreadable"):
            request(bad.id)
    assert as_client_sees(queue.runs[bad.id]).keys() == as_client_sees(queue.runs[good.id]).keys()
    assert 0 < len(as_client_sees(queue.runs[bad.id])["error"]) < 400
    queue.drop(bad.id)
    assert not os.path.lexists(bad.path)


@pytest.mark.parametrize("make", [os.mkfifo, Path.touch, lambda path: path.symlink_to("/etc")])
def test_a_file_with_a_runs_name_can_be_dropped(home: Path, runs: Path, make: Callable[[Path], object]) -> None:
    runs.mkdir(parents=True)
    make(runs / f"{7:016x}")
    (runs / "notes").mkdir()
    queue = create_queue(home)
    assert [(run.id, run.state) for run in queue.runs.values()] == [(f"{7:016x}", "unreadable")]
    queue.drop(f"{7:016x}")
    assert list_folders(runs) == []
    purge_dropped(runs, keep=0, max_age=0.0)
    assert [path.name for path in runs.iterdir()] == ["notes"]
    assert Path("/etc").is_dir()  # a link is removed, not what it points to


def test_a_run_that_only_a_newer_worker_elsewhere_can_read_cannot_be_dropped(home: Path, runs: Path) -> None:
    folder = create(runs)
    change_spec(folder, lambda spec: spec.update(format=2))
    plant_lease(folder, host="elsewhere")
    with pytest.raises(RunRefused, match="belongs to host elsewhere: drop it there"):
        create_queue(home).drop(folder.id)
    os.utime(folder.path / "lease.2", (0, 0))
    create_queue(home).drop(folder.id)


def test_damaged_events_that_do_not_affect_the_state_are_ignored(runs: Path) -> None:
    folder = create(runs)
    report = {"event": "report", "step": 1, "tokens": 2, "loss": 0.5, "similarity": 0.5}
    write_events(
        folder, {**QUEUED, "position": float("nan")}, QUEUED, "torn", {"event": "began", "step": 0},
        {**report, "step": "x"}, report, {**report, "loss": float("inf")}, {"event": "of a newer version"},
        "x" * (2 << 20), {**report, "step": 2, "text": "\ud800"}, '{"at": "20',
    )  # fmt: skip
    run = folder.read()
    assert (run.state, run.position) == ("running", 1.0)
    assert [point[0] for point in run.points] == [1, 2]
    assert run.latest["text"] == "\ufffd"
    assert folder.peek() == run


def test_the_curve_of_a_long_training_is_bounded_and_keeps_its_lowest_and_last_point(runs: Path) -> None:
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
    assert (folder.peek().state, folder.peek().points, folder.read().points) == ("done", (), points)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
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
def test_any_events_give_a_run_that_can_be_sent_to_clients(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, dict[str, Any]]]
) -> None:
    folder = create(tmp_path_factory.mktemp("runs"))
    write_events(folder, QUEUED, *(json.dumps({**GOOD, "event": kind, **values}) for kind, values in changes))
    run = load_run(folder)
    as_client_sees(run)
    assert run.state in ("queued", "running", "paused", "done", "stopped", "failed", "unreadable")
    if isinstance(run, Run):
        assert folder.read() == run
        json.dumps([run.points, dict(run.latest)], allow_nan=False)


def test_events_without_a_lease_are_readable(runs: Path) -> None:
    """Older versions wrote events without the number of a lease."""
    folder = create(runs)
    write_events(folder, QUEUED, {"event": "began", "step": 0}, {"event": "pausing"}, {"event": "paused"})
    assert (folder.read().state, folder.read().lease) == ("paused", 0)
    folder.append({"event": "queued"}, 2)
    folder.append({"event": "moved", "position": 4.0})
    assert (folder.read().state, folder.read().position, folder.read().lease) == ("queued", 4.0, 2)


# leases


def plant_lease(folder: RunFolder, **changes: Any) -> None:
    """Add a newer lease with another holder."""
    holder = replace(Holder.this_process(), **changes)
    (folder.path / f"lease.{newest_lease(folder.path) + 1}").write_text(json.dumps(asdict(holder)))


def dead_process() -> dict[str, Any]:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return {"pid": child.pid, "started": "1"}


def test_events_of_a_worker_that_lost_its_lease_do_not_count(home: Path, runs: Path) -> None:
    """The second queue takes a run that the first is training, and then both write events."""
    first = create_queue(home)
    run = first.submit(JOB, b"")
    (active,) = first.take_next_batch()
    for event in (
        {"event": "began", "step": 0},
        {"event": "report", "step": 10, "tokens": 2, "loss": 0.5, "similarity": 0.5},
    ):
        first.record_event(run.id, active.folder.append(event, active.lease.number))
    second = create_queue(home)
    paused = second.pause(run.id)
    assert (paused.state, newest_lease(active.folder.path)) == ("paused", 2)
    for late_event in (
        {"event": "moved", "position": 9.0},
        {"event": "failed", "error": "late", "lease": 1},
        {"event": "done", "entry": "x"},
    ):
        active.folder.append(late_event, active.lease.number)
    assert (active.folder.read().state, active.folder.peek().state) == ("paused", "paused")
    assert active.folder.read().position == run.position
    first.renew_leases()
    assert active.stop_request == "leave"
    first.handle_end(run.id, active.folder.stamp({"event": "done", "entry": "x"}, 1))
    assert first.runs[run.id].state == "paused"
    second.resume(run.id)
    assert [resumed.lease.number for resumed in second.take_next_batch()] == [2]


def test_reading_only_the_last_events_still_ignores_the_late_end_of_a_lost_run(runs: Path) -> None:
    folder = create(runs)
    take_lease(folder.path)
    folder.append({"event": "paused"}, 2)
    for step in range(200):
        folder.append({"event": "report", "step": step, "tokens": 2, "loss": 0.5, "similarity": 0.5}, 1, durable=False)
    folder.append({"event": "done", "entry": "x"}, 1)
    assert folder.peek().state == "paused"


def test_waiting_runs_need_no_lease_until_they_are_trained_or_changed(home: Path, runs: Path) -> None:
    folders = [create(runs, float(i)) for i in range(8)]
    holder_values = dead_process()
    for folder in folders:
        plant_lease(folder, **holder_values)
    queue = create_queue(home)
    assert {newest_lease(folder.path) for folder in folders} == {2}
    queue.pause(folders[1].id)
    queue.stop(folders[2].id)
    queue.move(folders[3].id, before=folders[0].id)
    queue.drop(folders[4].id)
    assert [newest_lease(folder.path) for folder in folders if folder.path.exists()] == [3, 3, 3, 3, 2, 2, 2]
    trained = [active.folder for active in queue.take_next_batch()]
    assert [folder.id for folder in trained] == [folders[i].id for i in (3, 0, 5, 6, 7)]
    assert {newest_lease(folder.path) for folder in trained} == {3}
    for folder in trained:
        assert read_holder(folder.path) == Holder.this_process()


def test_one_heartbeat_protects_all_waiting_runs_of_a_host(
    home: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other hosts may take over its runs on request, but only once the heartbeat stops."""
    local = create_queue(home)
    run = local.submit(JOB, b"")
    os.utime(runs / run.id / "lease.1", (0, 0))
    local.renew_leases()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    remote = create_queue(home)
    for request in (remote.stop, remote.pause, remote.drop, lambda run_id: remote.move(run_id, "")):
        with pytest.raises(RunRefused, match="belongs to host"):
            request(run.id)
    assert remote.take_next_batch() == []
    with pytest.raises(RunRefused, match="was active less than 120 seconds ago"):
        remote.resume(run.id)
    (heartbeat,) = runs.glob(".worker-*")
    os.utime(heartbeat, (0, 0))
    assert remote.resume(run.id).state == "queued"
    monkeypatch.undo()
    assert local.take_next_batch() == []
    with pytest.raises(RunRefused, match="belongs to host elsewhere"):
        local.pause(run.id)


OTHER_HOST = """
import socket, sys
socket.gethostname = lambda: "elsewhere"
from pathlib import Path
from softprompt.errors import SoftPromptError
from softprompt.worker.queue import Queue
queue = Queue(Path(sys.argv[1]), lambda changed, deleted: None)
list(queue.scan())
print("ready", flush=True)
for line in sys.stdin:
    action, run = line.split()
    try:
        print({"resume": queue.resume}[action](run).state, flush=True)
    except SoftPromptError:
        print("refused", flush=True)
"""


def test_two_hosts_that_take_the_same_runs_at_once_never_share_a_run(home: Path, runs: Path) -> None:
    """The other host, played by a process, takes over silent runs while this host changes them."""
    folders = [create(runs, float(i)) for i in range(24)]
    for folder in folders:
        os.utime(folder.path / "lease.1", (0, 0))
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER_HOST, str(home / "data")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdin is not None
    assert other.stdout is not None
    queue = create_queue(home)
    queue._leases.clear()  # like another process of this host, which has no leases
    assert other.stdout.readline() == "ready\n"
    other.stdin.write("".join(f"resume {folder.id}\n" for folder in folders))
    other.stdin.flush()
    taken_here = set()
    for i, folder in enumerate(reversed(folders)):
        request = (queue.pause, queue.stop, lambda run_id: queue.move(run_id, ""))[i % 3]
        try:
            request(folder.id)
            taken_here.add(folder.id)
        except RunRefused:
            pass
    taken_there = {folder.id for folder in folders if other.stdout.readline() == "queued\n"}
    other.stdin.close()
    other.wait(30)
    other.stdout.close()
    assert not taken_here & taken_there
    assert taken_here | taken_there == {folder.id for folder in folders}
    for folder in folders:
        holder = read_holder(folder.path)
        assert holder is not None
        assert (holder.host == "elsewhere") == (folder.id in taken_there)
        assert folder.read().lease == newest_lease(folder.path) == 2


def test_a_failed_run_that_one_host_resumes_cannot_be_dropped_by_another(
    home: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = create(runs)
    folder.append({"event": "failed", "error": "x"}, 1)
    first, second = create_queue(home), create_queue(home)
    first.resume(folder.id)
    with pytest.raises(RunRefused, match="is now queued: list the runs again"):
        second.drop(folder.id)
    assert folder.read().state == "queued"


# one host


def test_any_number_of_moves_into_one_gap_keeps_the_order(home: Path, queue: Queue) -> None:
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
    assert [run.id for run in list_runs(queue.folder)] == order


def test_a_run_that_the_trainer_has_received_is_no_longer_waiting(queue: Queue) -> None:
    """The run counts as training even before the trainer reports its start."""
    first, second = (queue.submit(SweepJob(prompt, JOB.config, sweep=(1,)), b"").id for prompt in ("a fox", "a boat"))
    (active,) = queue.take_next_batch()
    third = queue.submit(JOB, b"").id
    queue.move(third, before=second)
    assert [run.id for run in list_runs(queue.folder)] == [first, third, second]
    for moved, before in ((first, second), (first, ""), (second, first)):
        with pytest.raises(RunRefused, match=f"run {first} is training"):
            queue.move(moved, before)
    with pytest.raises(RunRefused, match="is training: stop or pause it first"):
        queue.drop(first)
    queue.pause(first)
    assert active.stop_request == "pause"
    assert queue.take_next_batch() == []


def test_a_huge_position_in_a_folder_does_not_affect_new_runs(home: Path, runs: Path) -> None:
    folder = create(runs, 2.0**52)
    queue = create_queue(home)
    positions = [queue.submit(JOB, b"").position for _ in range(3)]
    assert positions == [1.0, 2.0, 3.0]
    queue.move(folder.id, before="")
    assert queue.runs[folder.id].position == 4.0


def test_a_folder_that_vanishes_or_returns_is_reported(home: Path, runs: Path) -> None:
    changes: list[tuple[list[str], list[str]]] = []
    queue = Queue(
        home / "data", lambda changed, deleted: changes.append(([run.state for run in changed], list(deleted)))
    )
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
