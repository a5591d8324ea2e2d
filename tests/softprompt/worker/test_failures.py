"""What the worker does when it cannot train: a broken torch, no memory, a thread that dies, a device that is lost."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from softprompt.config import TrainConfig
from softprompt.errors import WorkerError
from softprompt.jobs.job import TrainJob
from softprompt.system.locks import take
from softprompt.worker import protocol as p
from softprompt.worker.client import WorkerGone, connect
from softprompt.worker.endpoint import Endpoint
from tests.conftest import BOAT, FOX
from tests.worker_process import Home, events, gone, is_listening, left_runs, until, wait_for

Run = Callable[..., subprocess.CompletedProcess[str]]
SHORT = TrainConfig(tokens=1, steps=10, contexts=())

pytestmark = pytest.mark.usefixtures("real_start")  # what is wrong with a process is wrong from its start


@pytest.fixture
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    process = Home(monkeypatch.setenv)
    yield process
    process.close()


def broken_torch(folder: Path, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package named torch on the path that runs this statement when it is imported."""
    (folder / "torch").mkdir()
    (folder / "torch" / "__init__.py").write_text(statement)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def start_worker(changes: str) -> None:
    """Start a worker after this code, which changes what it will find."""
    code = f"{changes}import sys\nsys.argv[1:] = []\nfrom softprompt.worker.__main__ import main\nmain()\n"
    Endpoint().prepare()
    subprocess.run([sys.executable, "-c", code, "softprompt.worker"], check=True)
    until(is_listening)


def heard_until_it_ended() -> tuple[list[dict[str, Any]], str]:
    """What a client is told by the worker that it starts, and why that one ended."""
    heard: list[dict[str, Any]] = []
    with pytest.raises(WorkerError) as raised:
        _listen(heard)
    assert not isinstance(raised.value, WorkerGone)  # after which clients would start the next one
    return heard, str(raised.value)


def _listen(heard: list[dict[str, Any]]) -> None:
    with connect() as client:  # type: ignore[union-attr]
        heard.extend(events(client))


@pytest.mark.parametrize(
    ("statement", "why"),
    [("raise ImportError('libtorch_cpu.so: cannot open shared object file')", "ImportError: libtorch_cpu.so: cannot open"),
     ("raise MemoryError", "MemoryError"), ("raise SystemExit('no torch today')", "SystemExit: no torch today")],
)  # fmt: skip
def test_without_a_torch_that_works_every_client_is_told_and_the_runs_wait(
    worker: Home, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str, why: str
) -> None:
    broken_torch(tmp_path, statement, monkeypatch)
    waiting = left_runs([TrainJob(FOX, SHORT)] * 2, "queued")
    heard, said = heard_until_it_ended()
    assert said.startswith(f"the worker has ended: nothing can be trained here ({why}")
    assert not [event for event in heard if event["type"] == "run" and event["run"]["state"] == "running"]
    if pid := worker.pid():
        gone(pid)
    assert [worker.record(one).state for one in waiting] == ["queued", "queued"]
    attached = run("attach", waiting[0])
    assert (attached.returncode, attached.stdout) == (1, "")
    assert why in attached.stderr
    assert "Traceback" not in attached.stderr
    until(lambda: worker.pid() is None)
    assert run("worker", "status").returncode == 1


def test_it_ends_with_exit_code_1_and_a_line_in_its_log(
    worker: Home, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken_torch(tmp_path, "raise ImportError('no such file')", monkeypatch)
    Endpoint().prepare()
    lock = take(Endpoint().worker_lock)
    assert lock is not None
    command = [sys.executable, "-P", "-m", "softprompt.worker", "--lock-fd", str(lock)]
    assert subprocess.run(command, pass_fds=(lock,), timeout=60).returncode == 1
    os.close(lock)
    (log,) = (home / "cache").glob("worker-*.log")
    assert "CRITICAL the thread that trains has died" in log.read_text()


def test_under_a_limit_of_memory_it_says_so_and_ends(worker: Home) -> None:
    (waiting,) = left_runs([TrainJob(FOX, SHORT)], "queued")
    usual = resource.getrlimit(resource.RLIMIT_AS)
    Endpoint().prepare()
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "softprompt.worker", "--ready-fd", str(writing)], pass_fds=(writing,),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (500 << 20, usual[1])),
    )  # fmt: skip
    os.close(writing)
    process.wait(60)
    assert os.read(reading, 100) == b"ready"
    os.close(reading)
    _, said = heard_until_it_ended()
    assert "nothing can be trained here (ImportError: libtorch" in said
    assert worker.record(waiting).state == "queued"


@pytest.mark.parametrize("broken", ["trainer.ThreadTrainer.start", "queue.Queue.scan"])
def test_where_no_thread_can_be_started_it_says_so_and_ends(worker: Home, broken: str) -> None:
    failing = (
        "import sys, softprompt.worker.trainer as trainer, softprompt.worker.queue as queue\n"
        'def fail(self): raise RuntimeError("can\'t start new thread")\n'
        f"{broken} = fail\n"
    )
    start_worker(failing)
    _, said = heard_until_it_ended()
    assert "nothing can be trained here (RuntimeError: can't start new thread)" in said


def test_a_run_that_kills_the_thread_fails_and_the_next_one_waits(worker: Home) -> None:
    """Else every worker that is started would die of the same run."""
    first, second = left_runs([TrainJob(FOX, SHORT), TrainJob(FOX, TrainConfig(tokens=2))], "queued")  # of two batches
    dying = (
        "import sys, types\n"
        "def carry(self): raise KeyboardInterrupt('out of a C library')\n"
        "def module(name, **values): sys.modules[name] = types.SimpleNamespace(__spec__=None, **values)\n"
        "module('softprompt.training.trainer')\n"
        "module('softprompt.worker.executor', Carrying=type('C', (), {'__init__': lambda self, *_: None, 'run': carry}))\n"
        "module('softprompt.worker.model_cache', Warm=type('W', (), {'names': list}))\n"
    )
    start_worker(dying)
    _, said = heard_until_it_ended()
    assert "KeyboardInterrupt: out of a C library" in said
    if pid := worker.pid():
        gone(pid)
    failed, waiting = worker.record(first), worker.record(second)
    assert (failed.state, failed.error) == (
        "failed",
        "the thread that trained it died (KeyboardInterrupt: out of a C library)",
    )
    assert (waiting.state, waiting.began) == ("queued", "")


def test_a_device_that_fails_fails_its_run_and_keeps_the_next_one_waiting_for_a_fresh_process(
    worker: Home, home: Path
) -> None:
    """The first process takes torch's meta device, which computes nothing, for its GPU; its probe must notice, and nothing else be begun there."""
    failing = (
        "import torch, softprompt.encoders.loading as m, softprompt.worker.model_cache as w\n"
        "known, m.check_device = m.pick_device, lambda name: None\n"
        "m.pick_device = w.pick_device = lambda name: torch.device('meta') if name in ('auto', 'meta') else known(name)\n"
        "def empty_cache(): raise RuntimeError('CUDA error: an illegal memory access was encountered')\n"
        "torch.cuda.is_available, torch.cuda.empty_cache = lambda: True, empty_cache\n"
        "from softprompt.worker.__main__ import main\n"
        "main()\n"
    )
    Endpoint().prepare()
    subprocess.run([sys.executable, "-c", failing], check=True)
    until(is_listening)
    with worker.client() as client:
        bad, good = (
            client.request(p.Submit(TrainJob(text, SHORT, device=device).as_dict()))["id"]
            for text, device in ((FOX, "auto"), (BOAT, "cpu"))
        )
        heard: list[dict[str, Any]] = []
        with pytest.raises(WorkerGone):
            heard.extend(events(client))
    assert heard[-1] == {"type": "bye", "again": True, "reason": ""}
    assert worker.record(bad).state == "failed"
    assert "meta" in worker.record(bad).error  # torch's own words
    assert not [
        event for event in heard if event["type"] == "run" and event["run"]["id"] == good and event["run"]["began"]
    ]
    assert worker.ended(good).state == "done"
    with worker.client() as client:  # of the fresh process, which has no such device
        client.request(p.Resume(bad))
        wait_for(client, bad, lambda told: told["state"] == "done")
    (log,) = (home / "cache").glob("worker-*.log")
    assert "is lost to this process, which starts afresh" in log.read_text()
