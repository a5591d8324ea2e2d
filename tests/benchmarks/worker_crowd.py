"""Measure a worker that has many runs and many clients.

    python -m tests.benchmarks.worker_crowd [--runs 10000] [--clients 20] [--seconds 20]

Starts a worker in a home with many waiting runs. Measures the time until its first answer, until a client has the whole
list, and until the interface shows the runs. Then many clients, one of them slow, read while runs change. The worker
must not disconnect any of them.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from softprompt.config import TrainConfig
from softprompt.jobs.job import TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.client import Client, connect
from softprompt.worker.endpoint import Endpoint
from tests.pty_screen import Terminal
from tests.worker_process import Home, create_abandoned_runs, wait_until

FIRST_ANSWER_SECONDS, PAINTED_SECONDS = 2.0, 1.0  # goals
RUN_MARK = b'"of_entry":'  # occurs once in every run
SLOW_BYTES = 4096  # that the slow client reads in a tenth of a second


class Reader(threading.Thread):
    """A client that counts the runs that it receives. It does not parse them, since all readers share this process."""

    def __init__(self, is_slow: bool) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.fspath(Endpoint().socket))
        self.socket.sendall(p.encode(p.hello()))
        self.is_slow = is_slow
        self.runs = 0
        self.is_disconnected = False

    def run(self) -> None:
        try:
            rest = b""
            while data := self.socket.recv(SLOW_BYTES if self.is_slow else 1 << 18):
                self.runs += (rest + data).count(RUN_MARK)
                rest = data[1 - len(RUN_MARK) :]
                if self.is_slow:
                    time.sleep(0.1)
        except OSError:
            pass
        self.is_disconnected = True


def move_runs(runs: list[str], seconds: float) -> int:
    """Move waiting runs for a number of seconds. Return how many moves the worker answered."""
    deadline, moves = time.monotonic() + seconds, 0
    with connect_client() as client:
        while time.monotonic() < deadline:
            client.request(p.Move(runs[-1 - moves % 500]))
            client._events.clear()
            moves += 1
    return moves


def processor_seconds(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def connect_client() -> Client:
    client = connect(start=False)
    assert client is not None
    return client


def measure_first_paint() -> tuple[float, float, float]:
    """Return the seconds until the frame, from there until the runs, and the processor seconds of the latter."""
    start = time.monotonic()
    with Terminal(width=120, height=40) as terminal:
        terminal.wait_for(r"F2 Prompt")
        frame, processor = time.monotonic(), processor_seconds(terminal.process.pid)
        terminal.wait_for(r"\d+ waiting", within=120)
        return frame - start, time.monotonic() - frame, processor_seconds(terminal.process.pid) - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="at least 600")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        try:
            figures = measure(home, options.runs, options.clients, options.seconds)
        finally:
            home.close()
    print(json.dumps(figures, indent=1))
    failed = [name for name, limit in _LIMITS.items() if figures[name] > limit]
    print("; ".join(f"{name} is more than {_LIMITS[name]:g}" for name in failed) or "all goals reached")
    sys.exit(bool(failed))


_LIMITS = {
    "first answer after the start, s": FIRST_ANSWER_SECONDS,
    "runs shown after the frame, s": PAINTED_SECONDS,
    "disconnected": 0,
}


def measure(home: Home, count: int, clients: int, seconds: float) -> dict[str, Any]:
    runs = create_abandoned_runs(
        [TrainJob("a lake at sunrise between high mountains", TrainConfig(tokens=1, steps=100_000), device="cpu")]
        * count,
        "queued",
    )
    start = time.monotonic()
    with home.client() as first:
        first.request(p.Status())
        first_answer = time.monotonic() - start
        received = {run["id"] for run in first.runs}
        whole_list, worker_processor = time.monotonic() - start, processor_seconds(home.pid())
    assert received == set(runs)
    frame, runs_shown, interface_processor = measure_first_paint()
    readers = [Reader(is_slow=number == 0) for number in range(clients)]
    start = time.monotonic()
    for reader in readers:
        reader.start()
    wait_until(lambda: all(reader.runs >= count or reader.is_slow or reader.is_disconnected for reader in readers), 300)
    all_lists = time.monotonic() - start
    moves = move_runs(runs, seconds)
    with connect_client() as client:
        start = time.monotonic()
        client.request(p.Status())
        later_answer = time.monotonic() - start
    return {
        "waiting runs": count,
        "clients": clients,
        "first answer after the start, s": round(first_answer, 2),
        "whole list, s": round(whole_list, 2),
        "interface's frame, s": round(frame, 2),
        "runs shown after the frame, s": round(runs_shown, 2),
        "processor time of the interface to show the runs, s": round(interface_processor, 2),
        "moves answered per second": round(moves / seconds, 1),
        "whole list to all fast clients, s": round(all_lists, 2),
        "answer while they are connected, s": round(later_answer, 3),
        "processor time of the worker until the first whole list, s": round(worker_processor, 2),
        "disconnected": sum(reader.is_disconnected for reader in readers),
    }


if __name__ == "__main__":
    main()
