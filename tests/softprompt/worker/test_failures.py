"""Tests of a worker that cannot train: a broken torch, too little memory, a dead thread, a lost device."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import TrainConfig
from softprompt.errors import WorkerError
from softprompt.jobs.job import TrainJob
from softprompt.system.locks import try_lock
from softprompt.worker import protocol as p
from softprompt.worker.client import WorkerGone, connect
from softprompt.worker.endpoint import Endpoint
from tests.conftest import BOAT, FOX
from tests.fake_hub import MODEL, WEIGHTS, Hub, serve_hub
from tests.worker_process import (
    Home,
    create_abandoned_runs,
    events,
    is_listening,
    wait_for_run,
    wait_until,
    wait_until_gone,
)

Run = Callable[..., subprocess.CompletedProcess[str]]
SHORT = TrainConfig(tokens=1, steps=10, contexts=())

pytestmark = pytest.mark.usefixtures("real_worker_start")  # failures must be present from the start of the process


def install_broken_torch(folder: Path, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package torch on the path that executes `statement` on import."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(statement)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def start_worker(patch: str) -> None:
    """Start a worker in a process that first executes the code `patch`."""
    code = f"{patch}import sys\nsys.argv[1:] = []\nfrom softprompt.worker.__main__ import main\nmain()\n"
    Endpoint().prepare()
    subprocess.run([sys.executable, "-c", code, "softprompt.worker"], check=True)
    wait_until(is_listening)


def receive_until_end() -> tuple[list[dict[str, Any]], str]:
    """Start a worker, and return what it sends until it ends, with the error that a client raises then."""
    received: list[dict[str, Any]] = []
    with pytest.raises(WorkerError) as raised:
        _receive(received)
    assert not isinstance(raised.value, WorkerGone)  # clients would start another worker after that
    return received, str(raised.value)


def _receive(received: list[dict[str, Any]]) -> None:
    with connect() as client:  # type: ignore[union-attr]
        received.extend(events(client))


@pytest.mark.parametrize(
    ("statement", "why"),
    [("raise ImportError('libtorch_cpu.so: cannot open shared object file')",
      "ImportError: libtorch_cpu.so: cannot open"),
     ("raise MemoryError", "MemoryError"), ("raise SystemExit('no torch today')", "SystemExit: no torch today")],
)  # fmt: skip
def test_a_broken_torch_is_reported_to_clients_and_the_runs_stay_queued(
    worker: Home, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, why: str
) -> None:
    install_broken_torch(tmp_path, statement, monkeypatch)
    waiting = create_abandoned_runs([TrainJob(FOX, SHORT)] * 2, "queued")
    received, error = receive_until_end()
    assert error.startswith(f"the worker has ended: training does not work here ({why}")
    assert not [event for event in received if event["type"] == "run" and event["run"]["state"] == "running"]
    if pid := worker.pid():
        wait_until_gone(pid)
    assert [worker.read_run(run_id).state for run_id in waiting] == ["queued", "queued"]
    attached = run("attach", waiting[0])
    assert (attached.returncode, attached.stdout) == (1, "")
    assert why in attached.stderr
    assert "Traceback" not in attached.stderr
    wait_until(lambda: worker.pid() is None)
    assert run("worker", "status").returncode == 1


def test_a_broken_torch_ends_the_worker_with_exit_code_1_and_a_log_line(
    worker: Home, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_broken_torch(tmp_path, "raise ImportError('no such file')", monkeypatch)
    Endpoint().prepare()
    lock = try_lock(Endpoint().worker_lock)
    assert lock is not None
    command = [sys.executable, "-P", "-m", "softprompt.worker", "--lock-fd", str(lock)]
    assert subprocess.run(command, pass_fds=(lock,), timeout=60).returncode == 1
    os.close(lock)
    (log,) = (home / "cache").glob("worker-*.log")
    assert "CRITICAL the trainer's thread has died" in log.read_text()


def test_a_worker_with_too_little_memory_reports_that_and_ends(worker: Home) -> None:
    (waiting,) = create_abandoned_runs([TrainJob(FOX, SHORT)], "queued")
    limits = resource.getrlimit(resource.RLIMIT_AS)
    Endpoint().prepare()
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "softprompt.worker", "--ready-fd", str(writing)], pass_fds=(writing,),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (500 << 20, limits[1])),
    )  # fmt: skip
    os.close(writing)
    process.wait(60)
    assert os.read(reading, 100) == b"ready"
    os.close(reading)
    _, error = receive_until_end()
    assert "training does not work here (ImportError: libtorch" in error
    assert worker.read_run(waiting).state == "queued"


@pytest.mark.parametrize("broken", ["trainer.ThreadTrainer.start", "queue.Queue.scan"])
def test_a_worker_that_cannot_start_a_thread_reports_that_and_ends(worker: Home, broken: str) -> None:
    patch = (
        "import sys, softprompt.worker.trainer as trainer, softprompt.worker.queue as queue\n"
        'def fail(self): raise RuntimeError("can\'t start new thread")\n'
        f"{broken} = fail\n"
    )
    start_worker(patch)
    _, error = receive_until_end()
    assert "training does not work here (RuntimeError: can't start new thread)" in error


def test_a_run_that_kills_the_trainer_fails_and_the_next_run_stays_queued(worker: Home) -> None:
    """Otherwise the run would kill every new worker."""
    first, second = create_abandoned_runs(
        [TrainJob(FOX, SHORT), TrainJob(FOX, TrainConfig(tokens=2))], "queued"
    )  # of two batches
    patch = (
        "import sys, types\n"
        "def run(self): raise KeyboardInterrupt('out of a C library')\n"
        "def module(name, **values): sys.modules[name] = types.SimpleNamespace(__spec__=None, **values)\n"
        "module('softprompt.training.trainer')\n"
        "executor = {'__init__': lambda self, *_: None, 'run': run}\n"
        "module('softprompt.worker.executor', RunExecutor=type('RunExecutor', (), executor))\n"
        "module('softprompt.worker.model_cache', ModelCache=type('ModelCache', (), {'names': list}))\n"
    )
    start_worker(patch)
    _, error = receive_until_end()
    assert "KeyboardInterrupt: out of a C library" in error
    if pid := worker.pid():
        wait_until_gone(pid)
    failed, waiting = worker.read_run(first), worker.read_run(second)
    assert (failed.state, failed.error) == (
        "failed",
        "its trainer died (KeyboardInterrupt: out of a C library)",
    )
    assert (waiting.state, waiting.began) == ("queued", "")


def test_a_lost_device_fails_its_run_and_the_next_run_waits_for_a_new_process(worker: Home, home: Path) -> None:
    """The first process takes torch's meta device, which computes nothing, for its GPU.

    It must notice that, and start no other run.
    """
    patch = (
        "import torch, softprompt.encoders.loading as m, softprompt.worker.model_cache as w\n"
        "known, m.check_device = m.pick_device, lambda name: None\n"
        "def pick_device(name): return torch.device('meta') if name in ('auto', 'meta') else known(name)\n"
        "m.pick_device = w.pick_device = pick_device\n"
        "def empty_cache(): raise RuntimeError('CUDA error: an illegal memory access was encountered')\n"
        "torch.cuda.is_available, torch.cuda.empty_cache = lambda: True, empty_cache\n"
        "from softprompt.worker.__main__ import main\n"
        "main()\n"
    )
    Endpoint().prepare()
    subprocess.run([sys.executable, "-c", patch], check=True)
    wait_until(is_listening)
    with worker.client() as client:
        bad, good = (
            client.request(p.Submit(TrainJob(text, SHORT, device=device).as_dict()))["id"]
            for text, device in ((FOX, "auto"), (BOAT, "cpu"))
        )
        received: list[dict[str, Any]] = []
        with pytest.raises(WorkerGone):
            received.extend(events(client))
    assert received[-1] == {"type": "bye", "again": True, "reason": ""}
    assert worker.read_run(bad).state == "failed"
    assert "meta" in worker.read_run(bad).error  # from torch's error
    assert not [
        event for event in received if event["type"] == "run" and event["run"]["id"] == good and event["run"]["began"]
    ]
    assert worker.wait_until_ended(good).state == "done"
    with worker.client() as client:  # the new process has no meta device
        client.request(p.Resume(bad))
        wait_for_run(client, bad, lambda run: run["state"] == "done")
    (log,) = (home / "cache").glob("worker-*.log")
    assert "the device no longer works in this process; restarting the worker" in log.read_text()


# a hub that goes silent


@pytest.fixture
def silent_hub(worker: Home, home: Path, cached_model_list: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that sends half of a model and then nothing. The worker uses it."""
    home.mkdir()
    (home / "cache").symlink_to(cached_model_list)
    with serve_hub() as hub:
        hub.stop_at = len(WEIGHTS) // 2
        for name, value in hub.environment(home / "hf").items():
            monkeypatch.setenv(name, value)
        yield hub


def test_a_run_whose_hub_goes_silent_is_stopped_at_once_and_the_worker_goes_on(silent_hub: Hub, worker: Home) -> None:
    run = worker.submit(FOX, model=MODEL, tokens=1, steps=10, contexts=())
    with worker.client() as client:
        for event in events(client, 120):
            if event["type"] == "loading" and event["bytes"] == silent_hub.stop_at and "no bytes for" in event["stage"]:
                break
        began = time.monotonic()
        client.request(p.Stop(run))
        wait_for_run(client, run, lambda run: run["state"] == "stopped")
        assert time.monotonic() - began < 3

    def measure() -> None:
        with worker.client() as client:
            client.request(p.Similarity(MODEL, [FOX], "cpu"))

    requests = len(silent_hub.ranges)
    with ThreadPoolExecutor() as pool:
        query = pool.submit(measure)  # downloads the model too, until a run needs the worker
        wait_until(lambda: len(silent_hub.ranges) > requests)
        other = worker.submit(BOAT, tokens=1, steps=10, contexts=())
        assert worker.wait_until_ended(other).state == "done"
        with pytest.raises(WorkerError, match="cannot be loaded while a run is training"):
            query.result()
