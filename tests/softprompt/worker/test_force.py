"""A worker that does not answer: clients say so, and it can be ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from softprompt.config import TrainConfig
from softprompt.errors import WorkerError
from softprompt.jobs.job import TrainJob
from softprompt.system import locks
from softprompt.system.locks import lock_holder
from softprompt.worker import client as worker_client
from softprompt.worker import force
from softprompt.worker import protocol as p
from softprompt.worker.client import WAITING, connect
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.force import EndedWorker, end_worker
from tests.conftest import FOX
from tests.worker_process import Home, wait_for_run

DEAF_HOLDER = """
import signal, sys
from pathlib import Path
from softprompt.system.locks import try_lock
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lock = try_lock(Path(sys.argv[1]))
print("locked", flush=True)
sys.stdin.read()
"""
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def frozen(worker: Home) -> int:
    """A worker that was stopped with SIGSTOP."""
    worker.client().close()
    pid = worker.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return pid


@pytest.fixture
def deaf(worker: Home) -> Iterator[int]:
    """A process that holds the worker's lock and ignores SIGTERM."""
    Endpoint().prepare()
    command = [sys.executable, "-c", DEAF_HOLDER, str(Endpoint().worker_lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_client_of_a_frozen_worker_says_that_it_waits_and_then_what_helps(
    frozen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_client, "NOTICE_SECONDS", 0.01)
    notices: list[str] = []
    with pytest.raises(WorkerError) as raised:
        connect(start=False, on_wait=notices.append, answer_seconds=0.1)
    assert notices == [WAITING]
    assert f"process {frozen}" in str(raised.value)
    assert "`softprompt-tui worker stop --force`" in str(raised.value)


@pytest.mark.parametrize("command", ["status", "stop"])
def test_the_commands_for_a_frozen_worker_do_not_wait_for_a_minute(
    run: Run, frozen: int, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(worker_client, "NOTICE_SECONDS", 0.01)
    monkeypatch.setattr(worker_client, "CONTROL_SECONDS", 0.1)
    done = run("worker", command)
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first == WAITING
    assert last.startswith(f"softprompt-tui: the worker (process {frozen}) does not answer.")


def test_a_frozen_worker_ends_by_force_and_its_run_continues(worker: Home, run: Run) -> None:
    with worker.client() as client:
        job = TrainJob(FOX, TrainConfig(tokens=1, steps=50_000, contexts=()), device="cpu")
        run_id = client.request(p.Submit(job.as_dict()))["id"]
        wait_for_run(client, run_id, lambda summary: summary["state"] == "running")
    pid = worker.pid()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    done = run("worker", "stop", "--force")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"the worker (process {pid}) has ended; unfinished runs continue when it starts again\n"
    assert worker.pid() is None
    assert run("worker", "stop", "--force").stderr == "no worker is running\n"
    with worker.client() as client:
        wait_for_run(client, run_id, lambda summary: summary["state"] == "running")


def test_a_worker_that_ignores_sigterm_is_killed(deaf: int) -> None:
    assert end_worker(Endpoint(), patience=0.1) == EndedWorker(deaf, was_killed=True)
    assert lock_holder(Endpoint().worker_lock) is None


def test_a_process_that_no_longer_holds_the_lock_gets_no_signal(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id may be of another process by now."""
    holders = iter([deaf, None])
    monkeypatch.setattr(force, "lock_holder", lambda _: next(holders))
    monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: pytest.fail("a signal was sent"))
    assert end_worker(Endpoint()) == EndedWorker(deaf, was_killed=False)


def test_a_holder_that_cannot_be_found_is_an_error(deaf: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_holds_lock", lambda *_: False)  # as for a process of another user
    with pytest.raises(WorkerError, match=r"cannot be found. `fuser .*\.worker` may name it"):
        end_worker(Endpoint())


def test_finish_and_force_exclude_each_other(run: Run) -> None:
    done = run("worker", "stop", "--finish", "--force")
    assert done.returncode == 2
    assert "give either --finish or --force" in done.stderr
