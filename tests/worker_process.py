"""A real worker for tests and benchmarks: its home, its process, and the deaths it may die."""

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
from softprompt.config import TrainConfig
from softprompt.jobs.job import Job, TrainJob
from softprompt.prompts.serialization import to_dict
from softprompt.worker import protocol as p
from softprompt.worker.client import Client, connect
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.leases import Holder
from softprompt.worker.run_folder import EVENTS, FORMAT, SPEC, Run, all_runs, now, runs_folder
from softprompt.worker.summary import ENDED
from tests.nursery import Nursery


class Home:
    """A home with a worker of its own, as the environment names it; `close` kills what is left and removes the sockets."""

    def __init__(self, set_variable: Callable[[str, str], None]) -> None:
        self.runtime = Path(tempfile.mkdtemp(prefix="sp"))  # short: a socket's path has 107 bytes
        set_variable("SOFTPROMPT_RUNTIME", str(self.runtime))

    def client(self) -> Client:
        client = connect()
        assert client is not None
        return client

    def submit(self, prompt: str, device: str = "cpu", model: str = "mini", **settings: object) -> str:
        with self.client() as client:
            job = TrainJob(prompt, TrainConfig(**settings), device=device, model=model)  # type: ignore[arg-type]
            run: str = client.request(p.Submit(job.as_dict()))["id"]
            return run

    def begin_an_older_one(self, nursery: Nursery) -> None:
        """Starts a worker of the protocol before this one; it must end before another can begin."""
        Endpoint().prepare()
        nursery.start_an_older_one()
        until(is_listening, 30)

    def pid(self) -> int | None:
        """The worker's process, found without talking to it: the one that holds its lock."""
        try:
            locks = {f"{lock.stat().st_ino}" for lock in self.runtime.glob("*.worker")}
        except OSError:
            return None
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, *_, pid, file, _, _ = line.split()
            if kind == "FLOCK" and file.rpartition(":")[2] in locks:
                return int(pid)
        return None

    def kill(self) -> None:
        """kill -9, and waits until the process is gone."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
            gone(pid)

    def record(self, run: str) -> Run:
        (found,) = [known for known in all_runs(runs_folder()) if known.id == run]
        assert isinstance(found, Run)
        return found

    def ended(self, run: str, within: float = 120) -> Run:
        """The run once it is over, the worker being started again where it is not there."""
        with self.client() as client:
            wait_for(client, run, lambda record: record["state"] in ENDED, within)
        return self.record(run)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.runtime, ignore_errors=True)


def left_runs(jobs: Sequence[Job], state: str) -> list[str]:
    """Run folders as a worker that was killed left them, in their order; written without syncing, since there may be thousands."""
    dead = json.dumps(asdict(replace(Holder.me(), started="1")))
    runs = [f"{i:016x}" for i in range(1, len(jobs) + 1)]
    for position, (run, job) in enumerate(zip(runs, jobs, strict=True), 1):
        folder = runs_folder() / run
        folder.mkdir(parents=True, mode=0o700)
        (folder / SPEC).write_text(json.dumps({"format": FORMAT, "created": now(), "job": job.as_dict()}))
        events = [{"at": now(), "event": "queued", "position": position}] + [{"at": now(), "event": state}] * (
            state != "queued"
        )
        (folder / EVENTS).write_text("".join(json.dumps(event) + "\n" for event in events))
        (folder / "lease.1").write_text(dead)
    return runs


def events(client: Client, within: float = 60) -> Iterator[dict[str, Any]]:
    """What happens, for so many seconds: raises WorkerError then, and WorkerGone at the worker's end."""
    end = time.monotonic() + within
    while True:
        yield client._events.popleft() if client._events else client._next(end - time.monotonic())


def wait_for(client: Client, run: str, wanted: Callable[[dict[str, Any]], bool], within: float = 60) -> dict[str, Any]:
    """The run as the worker tells it, once it is as wanted: by its events, not by asking again and again."""
    known = {one["id"]: one for one in client.runs}
    if run in known and wanted(known[run]):
        return known[run]
    for event in events(client, within):
        if event["type"] == "run" and event["run"]["id"] == run and wanted(event["run"]):
            told: dict[str, Any] = event["run"]
            return told
    raise AssertionError("events do not end")


def gone(pid: int, within: float = 60) -> None:
    """Waits for the end of a process that is nobody's child here."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([descriptor], [], [], within)[0], f"process {pid} has not ended after {within} s"
    finally:
        os.close(descriptor)


def until(there: Callable[[], object], within: float = 60) -> None:
    """Waits for something of another process that tells nobody of itself, leaving that process the cores meanwhile."""
    began = time.monotonic()
    while not there():
        assert time.monotonic() - began < within, f"not there after {within} s"
        select.select([], [], [], 0.01)


def is_listening() -> bool:
    """Return whether a worker listens. Its socket is there a moment before, and refuses connections until then."""
    accepts = "00010000"  # the kernel's flag of a socket that listens
    sockets = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()]
    listens = any(fields[3] == accepts and fields[-1] == str(Endpoint().socket) for fields in sockets[1:])
    return listens and Endpoint().socket.exists()  # one whose file has vanished still listens, and nobody finds it


def nicenesses(pid: int) -> set[int]:
    """Those of all the threads of a process."""
    stats = [path.read_text().rpartition(")")[2].split() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {int(fields[16]) for fields in stats}


def same_bits(a: SoftPrompt, b: SoftPrompt) -> bool:
    """Whether two trainings came to the same, but for when and how fast."""
    apart = {"seconds", "steps_per_second", "created", "name"}
    figures = [{key: value for key, value in to_dict(made).items() if key not in apart} for made in (a, b)]
    return figures[0] == figures[1] and all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("vectors", "target", "losses", "similarities")
    )


def saved(run: str) -> SoftPrompt:
    """What a run left in the library."""
    return Library().open(run).prompt
