"""A real worker for tests and benchmarks: its home, its process, and the deaths it may die."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from softprompt import Library, SoftPrompt
from softprompt.config import TrainConfig
from softprompt.job import Job
from softprompt.worker import protocol as p
from softprompt.worker.client import Client, connect
from softprompt.worker.place import Place
from softprompt.worker.runfolder import ENDED, Record, records, runs_folder


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
            job = Job(prompt, TrainConfig(**settings), device=device, model=model)  # type: ignore[arg-type]
            run: str = client.request(p.Submit(job.as_dict()))["id"]
            return run

    def begin_an_older_one(self) -> None:
        """Starts a worker of the protocol before this one; it must end before another can begin."""
        code = (
            "import sys\n"
            "sys.argv[1:] = []\n"  # its name, by which `pid` finds it
            "from softprompt.worker import protocol\n"
            "protocol.PROTOCOL -= 1\n"
            "from softprompt.worker.__main__ import main\n"
            "main()\n"
        )
        Place().prepare()
        subprocess.run([sys.executable, "-c", code, "softprompt.worker"], check=True)
        until(Place().socket.exists, 30)

    def pid(self) -> int | None:
        """The worker's process, found without talking to it."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
                environment = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"softprompt.worker" in words and f"SOFTPROMPT_RUNTIME={self.runtime}".encode() in environment:
                return int(folder.name)
        return None

    def kill(self) -> None:
        """kill -9, and waits until the process is gone."""
        pid = self.pid()
        if pid is not None:
            descriptor = os.pidfd_open(pid)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            until(lambda: self.pid() != pid, 10)
            os.close(descriptor)

    def record(self, run: str) -> Record:
        (found,) = [record for record in records(runs_folder()) if record.id == run]
        return found

    def ended(self, run: str, within: float = 120) -> Record:
        """The run once it is over, the worker being started again where it is not there."""
        with self.client() as client:
            wait_for(client, run, lambda record: record["state"] in ENDED, within)
        return self.record(run)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.runtime, ignore_errors=True)


def wait_for(client: Client, run: str, wanted: Callable[[dict[str, object]], bool], within: float = 60) -> dict[str, object]:
    """The run as the worker tells it, once it is as wanted: by its events, not by asking again and again."""
    client._socket.settimeout(within)
    known = {one["id"]: one for one in client.runs}
    if run in known and wanted(known[run]):
        return known[run]
    began = time.monotonic()
    for event in client.events():
        if event["type"] == "run" and event["run"]["id"] == run and wanted(event["run"]):
            told: dict[str, object] = event["run"]
            return told
        assert time.monotonic() - began < within, f"run {run} is not as wanted after {within} s"
    raise AssertionError("events do not end")


def until(there: Callable[[], object], within: float) -> None:
    """Waits for something of another process that tells nobody of itself."""
    began = time.monotonic()
    while not there():
        assert time.monotonic() - began < within, f"not there after {within} s"
        os.sched_yield()


def nicenesses(pid: int) -> set[int]:
    """Those of all the threads of a process."""
    stats = [path.read_text().rpartition(")")[2].split() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {int(fields[16]) for fields in stats}


def same_bits(a: SoftPrompt, b: SoftPrompt) -> bool:
    """Whether two trainings came to the same, but for when and how fast."""
    apart = {"seconds", "steps_per_second", "created", "name"}
    figures = [{key: value for key, value in made.summary().items() if key not in apart} for made in (a, b)]
    return figures[0] == figures[1] and all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in ("vectors", "target", "losses", "similarities")
    )


def saved(run: str) -> SoftPrompt:
    """What a run left in the library."""
    return Library().open(run).prompt
