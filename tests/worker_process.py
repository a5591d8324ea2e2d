"""A real worker for tests and benchmarks: its home, its process, and ways to kill it."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from softprompt import Library, SoftPrompt
from softprompt.config import config_for
from softprompt.encoders.catalog import model_kind
from softprompt.jobs.job import Job, TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.client import Client, connect
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.leases import Holder
from softprompt.worker.run_folder import EVENTS, FORMAT, SPEC, Run, list_runs, now, runs_folder
from softprompt.worker.summary import ENDED
from tests.nursery import Nursery


class Home:
    """A home with its own worker, set through the environment. `close` kills the worker and deletes its sockets."""

    def __init__(self, set_variable: Callable[[str, str], None]) -> None:
        self.runtime = Path(tempfile.mkdtemp(prefix="sp"))  # short: a socket's path has 107 bytes
        set_variable("SOFTPROMPT_RUNTIME", str(self.runtime))

    def client(self) -> Client:
        client = connect()
        assert client is not None
        return client

    def submit(self, prompt: str, device: str = "cpu", model: str = "mini", **settings: object) -> str:
        with self.client() as client:
            job = TrainJob(prompt, config_for(model_kind(model), settings), device=device, model=model)
            run: str = client.request(p.Submit(job.as_dict()))["id"]
            return run

    def start_older_worker(self, nursery: Nursery) -> None:
        """Start a worker with the previous protocol. It must end before another worker can start."""
        Endpoint().prepare()
        nursery.start_older_worker()
        wait_until(is_listening, 30)

    def pid(self) -> int | None:
        """Return the worker's process without connecting to it: the process that holds its lock."""
        try:
            lock_inodes = {f"{lock.stat().st_ino}" for lock in self.runtime.glob("*.worker")}
        except OSError:
            return None
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, *_, pid, file, _, _ = line.split()
            if kind == "FLOCK" and file.rpartition(":")[2] in lock_inodes:
                return int(pid)
        return None

    def kill(self) -> None:
        """Kill the worker with SIGKILL, and wait until the process has ended."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            wait_until_gone(pid)

    def read_run(self, run_id: str) -> Run:
        (run,) = [run for run in list_runs(runs_folder()) if run.id == run_id]
        assert isinstance(run, Run)
        return run

    def wait_until_ended(self, run_id: str, timeout: float = 120) -> Run:
        """Wait until a run is over, and return it. Starts the worker if necessary."""
        with self.client() as client:
            wait_for_run(client, run_id, lambda run: run["state"] in ENDED, timeout)
        return self.read_run(run_id)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.runtime, ignore_errors=True)


def create_abandoned_runs(jobs: Sequence[Job], state: str) -> list[str]:
    """Create run folders as a killed worker leaves them, in queue order, and return their ids.

    Nothing is synced to disk, since a test may create thousands.
    """
    dead_holder = json.dumps(asdict(replace(Holder.this_process(), started="1")))
    run_ids = [f"{i:016x}" for i in range(1, len(jobs) + 1)]
    for position, (run_id, job) in enumerate(zip(run_ids, jobs, strict=True), 1):
        folder = runs_folder() / run_id
        folder.mkdir(parents=True, mode=0o700)
        (folder / SPEC).write_text(json.dumps({"format": FORMAT, "created": now(), "job": job.as_dict()}))
        events = [{"at": now(), "event": "queued", "position": position}] + [{"at": now(), "event": state}] * (
            state != "queued"
        )
        (folder / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events))
        (folder / "lease.1").write_text(dead_holder)
    return run_ids


def events(client: Client, timeout: float = 60) -> Iterator[dict[str, Any]]:
    """Yield events. Raises WorkerError after `timeout` seconds, and WorkerGone when the worker ends."""
    end = time.monotonic() + timeout
    while True:
        yield client._events.popleft() if client._events else client._next_message(end - time.monotonic())


def wait_for_run(
    client: Client, run_id: str, condition: Callable[[dict[str, Any]], bool], timeout: float = 60
) -> dict[str, Any]:
    """Wait until a run meets a condition, and return it as the worker sent it. Uses events instead of polling."""
    run_by_id = {run["id"]: run for run in client.runs}
    if run_id in run_by_id and condition(run_by_id[run_id]):
        return run_by_id[run_id]
    for event in events(client, timeout):
        if event["type"] == "run" and event["run"]["id"] == run_id and condition(event["run"]):
            run: dict[str, Any] = event["run"]
            return run
    raise AssertionError("events do not end")


def wait_until_gone(pid: int, timeout: float = 60) -> None:
    """Wait for the end of a process that is not a child of this one."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], timeout)[0], f"process {pid} has not ended after {timeout} s"
    finally:
        os.close(descriptor)


def wait_until(condition: Callable[[], object], timeout: float = 60) -> None:
    """Poll until a condition on another process is true. The pauses leave the cores to that process."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < timeout, f"still not true after {timeout} s"
        select.select([], [], [], 0.01)


def is_listening() -> bool:
    """Return whether a worker listens. Its socket file exists a moment earlier, but refuses connections."""
    accepts = "00010000"  # the kernel's flag for a listening socket
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    listens = any(fields[3] == accepts and fields[-1] == str(Endpoint().socket) for fields in sockets[1:])
    return listens and Endpoint().socket.exists()  # a socket whose file has vanished still listens


def nicenesses(pid: int) -> set[int]:
    """Return the niceness values of all threads of a process."""
    stats = [path.read_text().rpartition(")")[2].split() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {int(fields[16]) for fields in stats}


def same_bits(a: SoftPrompt, b: SoftPrompt) -> bool:
    """Return whether two trainings have bit-identical results, apart from names and times."""
    ignored = {"seconds", "steps_per_second", "created", "name"}
    figures = [{key: value for key, value in prompt.as_dict().items() if key not in ignored} for prompt in (a, b)]
    return figures[0] == figures[1] and all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("vectors", "target", "losses", "similarities")
    )


def saved_prompt(run_id: str) -> SoftPrompt:
    """Return the soft prompt that a run has saved in the library."""
    return Library().open(run_id).prompt
