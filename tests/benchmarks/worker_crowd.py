"""The worker under load: python -m tests.benchmarks.worker_crowd [--runs 10000] [--clients 20] [--seconds 20].

A home with many waiting runs is left to a worker that is started: how long until its first answer, until the whole list is told, and until
the interface is painted on a terminal; then many clients read on while runs change, and a slow one among them. Nobody may be cut off.
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

FIRST_ANSWER_SECONDS, PAINTED_SECONDS = 2.0, 1.0  # what is aimed at
IN_EVERY_RUN = b'"of_entry":'
SLOW_BYTES = 4096  # that the slow client reads in a tenth of a second


class Reader(threading.Thread):
    """A client that reads, and counts the runs it is told of; it makes nothing of them, since all readers share this process."""

    def __init__(self, is_slow: bool) -> None:
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.fspath(Endpoint().socket))
        self.socket.sendall(p.encode(p.hello()))
        self.is_slow = is_slow
        self.runs = 0
        self.is_cut_off = False

    def run(self) -> None:
        try:
            rest = b""
            while data := self.socket.recv(SLOW_BYTES if self.is_slow else 1 << 18):
                self.runs += (rest + data).count(IN_EVERY_RUN)
                rest = data[1 - len(IN_EVERY_RUN) :]
                if self.is_slow:
                    time.sleep(0.1)
        except OSError:
            pass
        self.is_cut_off = True


def changes(runs: list[str], seconds: float) -> int:
    """Move waiting runs for so long; how many moves were answered."""
    end, moved = time.monotonic() + seconds, 0
    with _client() as client:
        while time.monotonic() < end:
            client.request(p.Move(runs[-1 - moved % 500]))
            client._events.clear()
            moved += 1
    return moved


def processor_seconds(pid: int | None) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _client() -> Client:
    client = connect(start=False)
    assert client is not None
    return client


def painted() -> tuple[float, float, float]:
    """Seconds until the interface shows its frame, from there until it shows the runs, and of processor time for the latter."""
    began = time.monotonic()
    with Terminal(width=120, height=40) as terminal:
        terminal.wait_for(r"F2 Prompt")
        frame, busy = time.monotonic(), processor_seconds(terminal.process.pid)
        terminal.wait_for(r"\d+ waiting", within=120)
        return frame - began, time.monotonic() - frame, processor_seconds(terminal.process.pid) - busy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="600 at least")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        try:
            figures = measured(home, options.runs, options.clients, options.seconds)
        finally:
            home.close()
    print(json.dumps(figures, indent=1))
    missed = [name for name, most in _TARGETS.items() if figures[name] > most]
    print("; ".join(f"{name} is over {_TARGETS[name]:g}" for name in missed) or "all within what is aimed at")
    sys.exit(bool(missed))


_TARGETS = {
    "first answer after the start, s": FIRST_ANSWER_SECONDS,
    "runs painted after the frame, s": PAINTED_SECONDS,
    "cut off": 0,
}


def measured(home: Home, count: int, clients: int, seconds: float) -> dict[str, Any]:
    runs = create_abandoned_runs(
        [TrainJob("a lake at sunrise between high mountains", TrainConfig(tokens=1, steps=100_000), device="cpu")]
        * count,
        "queued",
    )
    began = time.monotonic()
    with home.client() as first:
        first.request(p.Status())
        answered = time.monotonic() - began
        listed = {run["id"] for run in first.runs}
        whole, busy = time.monotonic() - began, processor_seconds(home.pid())
    assert listed == set(runs)
    frame, shown, drawing = painted()
    readers = [Reader(is_slow=number == 0) for number in range(clients)]
    began = time.monotonic()
    for reader in readers:
        reader.start()
    wait_until(lambda: all(reader.runs >= count or reader.is_slow or reader.is_cut_off for reader in readers), 300)
    told = time.monotonic() - began
    moved = changes(runs, seconds)
    with _client() as client:
        began = time.monotonic()
        client.request(p.Status())
        later = time.monotonic() - began
    return {
        "waiting runs": count, "clients": clients, "first answer after the start, s": round(answered, 2), "whole list, s": round(whole, 2),
        "interface's frame, s": round(frame, 2), "runs painted after the frame, s": round(shown, 2), "processor time of the interface for that, s": round(drawing, 2), "moves answered a second": round(moved / seconds, 1),
        "whole list to all the quick clients, s": round(told, 2), "answer beside them, s": round(later, 3),
        "processor time of the worker until the first whole list, s": round(busy, 2), "cut off": sum(one.is_cut_off for one in readers),
    }  # fmt: skip


if __name__ == "__main__":
    main()
