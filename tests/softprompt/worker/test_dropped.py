"""Dropped runs come back as they were, until they are purged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from softprompt.config import TrainConfig
from softprompt.errors import HomeError, RunNotFound
from softprompt.jobs.job import TrainJob
from softprompt.worker import queue as queue_module
from softprompt.worker.queue import Queue
from softprompt.worker.run_folder import (
    DROPPED_SECONDS,
    MAX_DROPPED,
    Run,
    RunFolder,
    list_dropped,
    list_runs,
    runs_folder,
)
from tests.worker_process import Home


def open_queue() -> Queue:
    """Return a queue that has read the runs, as a worker's does when it starts."""
    queue = Queue(runs_folder().parent, lambda *_: None)
    for _ in queue.scan():
        pass
    return queue


def ids() -> list[str]:
    return [run.id for run in list_runs(runs_folder())]


def age(run_id: str, seconds: float) -> None:
    """Make a dropped run older."""
    then = time.time() - seconds
    os.utime(RunFolder(runs_folder() / run_id).dropped_path, (then, then))


def test_a_dropped_run_comes_back_in_its_place_and_with_its_files() -> None:
    queue = open_queue()
    runs = [queue.submit(TrainJob(f"fox {i}"), b"start") for i in range(3)]
    (runs_folder() / runs[1].id / "checkpoint").write_bytes(b"progress")
    queue.drop(runs[1].id)
    assert ids() == [runs[0].id, runs[2].id]
    back = queue.restore(runs[1].id[:6])
    assert isinstance(back, Run)
    assert (back.state, back.position) == ("queued", runs[1].position)
    assert ids() == [run.id for run in runs]
    assert RunFolder(runs_folder() / runs[1].id).read_start() == b"start"
    assert RunFolder(runs_folder() / runs[1].id).read_bytes("checkpoint") == b"progress"
    assert [active.id for active in queue.take_next_batch()] == [run.id for run in runs]  # it is trained again


def test_another_worker_can_bring_a_run_back_after_the_first_was_killed() -> None:
    code = (
        "from softprompt.worker.queue import Queue; from softprompt.worker.run_folder import runs_folder\n"
        "from softprompt.jobs.job import TrainJob; import os\n"
        "queue = Queue(runs_folder().parent, lambda changed, deleted: None)\n"
        "run = queue.submit(TrainJob('a fox'), b''); queue.drop(run.id); print(run.id, flush=True); os._exit(9)"
    )
    run_id = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    queue = open_queue()
    assert ids() == []
    assert queue.restore(run_id).state == "queued"
    assert queue.pause(run_id).state == "paused"  # it belongs to this worker now


def test_dropped_runs_do_not_pile_up() -> None:
    queue = open_queue()
    runs = [queue.submit(TrainJob(f"fox {i}"), b"") for i in range(MAX_DROPPED + 3)]
    for number, run in enumerate(runs):
        queue.drop(run.id)
        age(run.id, 1000.0 - number)  # file systems may round the times of drops in quick succession
    queue.drop(queue.submit(TrainJob("the last"), b"").id)
    assert len(list_dropped(runs_folder())) == MAX_DROPPED
    with pytest.raises(RunNotFound, match="The last 50 dropped runs can be restored"):
        queue.restore(runs[0].id)
    age(runs[-1].id, DROPPED_SECONDS + 10)
    for _ in queue.scan():
        pass
    assert runs[-1].id not in list_dropped(runs_folder())
    assert not [path for path in runs_folder().iterdir() if path.name.endswith(".partial")]


def test_a_full_disk_makes_room_by_deleting_dropped_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = open_queue()
    dropped = queue.submit(TrainJob("a fox"), b"")
    queue.drop(dropped.id)
    create = RunFolder.create

    def create_if_empty(runs: Path, *args: object) -> object:
        if list_dropped(runs):
            raise HomeError("the disk is full") from OSError(28, "No space left on device")
        return create(runs, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(queue_module.RunFolder, "create", create_if_empty)
    assert queue.submit(TrainJob("a boat"), b"").state == "queued"
    assert list_dropped(runs_folder()) == []


@pytest.mark.parametrize("name", ["", "../../x", "0000", "." * 16])
def test_only_a_dropped_run_can_be_restored(name: str) -> None:
    queue = open_queue()
    run = queue.submit(TrainJob("a fox"), b"")
    for unknown in (name, run.id):
        with pytest.raises(RunNotFound, match="no dropped run is named"):
            queue.restore(unknown)


def test_every_client_sees_a_run_go_and_come_back(worker: Home) -> None:
    from softprompt.worker import protocol as p

    with worker.client() as first, worker.client() as second:
        job = TrainJob("a fox", TrainConfig(steps=100_000, contexts=()), device="cpu").as_dict()
        first.request(p.Submit(job))
        waiting = first.request(p.Submit(job | {"prompt": "a boat", "precision": "bfloat16"}))["id"]
        first.request(p.Drop(waiting))
        assert second.request(p.Restore(waiting))["id"] == waiting
        seen = []
        for event in second.events():
            if event["type"] == "dropped" or (event["type"] == "run" and event["run"]["id"] == waiting):
                seen.append(event["type"])
            if seen[-2:] == ["dropped", "run"]:
                break
        assert [event for event in seen if event == "dropped"] == ["dropped"]
