"""The worker under load: python -m tests.benchmarks.worker_crowd [--runs 10000] [--clients 20] [--seconds 20].

A home with many waiting runs is left to a worker that is started: how long until its first answer, until the whole list is told, and until
the interface is painted on a terminal; then many clients read on while runs change, and a slow one among them. Nobody may be cut off.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from typing import Any

from softprompt.config import TrainConfig
from softprompt.job import Job
from softprompt.worker import protocol as p
from softprompt.worker.client import Client, WorkerGone, connect
from tests.pty_screen import Terminal
from tests.worker_process import Home, left_runs

FIRST_ANSWER_SECONDS, PAINTED_SECONDS = 2.0, 1.0  # what is aimed at
SLOW_BYTES = 4096  # that the slow client reads in a tenth of a second


class Reader(threading.Thread):
    """A client that reads until it is stopped, and knows how many runs it has been told of."""

    def __init__(self, is_slow: bool) -> None:
        super().__init__(daemon=True)
        client = connect(start=False)
        assert client is not None
        self.client, self.is_slow = client, is_slow
        self.known: set[str] = set()
        self.messages = 0
        self.cut_off = ""

    def run(self) -> None:
        try:
            if self.is_slow:
                while True:
                    self.messages += len(self.client._socket.recv(SLOW_BYTES)) > 0
                    time.sleep(0.1)
            self.known = {run["id"] for run in self.client.runs}
            for _ in self.client.events():
                self.messages += 1
        except (WorkerGone, OSError) as error:
            self.cut_off = str(error)


def changes(runs: list[str], seconds: float) -> int:
    """Move waiting runs for so long; how many moves were answered."""
    until, moved = time.monotonic() + seconds, 0
    with _client() as client:
        while time.monotonic() < until:
            client.request(p.Move(runs[-1 - moved % 500]))
            client._events.clear()
            moved += 1
    return moved


def _client() -> Client:
    client = connect(start=False)
    assert client is not None
    return client


def painted() -> tuple[float, float]:
    """Seconds until the interface shows its frame, and from there until it shows the runs."""
    began = time.monotonic()
    with Terminal(width=120, height=40) as terminal:
        terminal.shows(r"F2 Prompt")
        frame = time.monotonic()
        terminal.shows(r"\d+ waiting", within=120)
        return frame - began, time.monotonic() - frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
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
    runs = left_runs(
        [Job("a lake at sunrise between high mountains", TrainConfig(tokens=1, steps=100_000), device="cpu")] * count, "queued"
    )
    began = time.monotonic()
    with home.client() as first:
        first.request(p.Status())
        answered = time.monotonic() - began
        listed = {run["id"] for run in first.runs}
        whole = time.monotonic() - began
    assert listed == set(runs)
    frame, shown = painted()
    readers = [Reader(is_slow=number == 0) for number in range(clients)]
    for reader in readers:
        reader.start()
    moved = changes(runs, seconds)
    with _client() as client:
        began = time.monotonic()
        client.request(p.Status())
        later = time.monotonic() - began
    return {
        "waiting runs": count, "clients": clients, "first answer after the start, s": round(answered, 2), "whole list, s": round(whole, 2),
        "interface's frame, s": round(frame, 2), "runs painted after the frame, s": round(shown, 2), "moves answered a second": round(moved / seconds, 1),
        "answer beside the clients, s": round(later, 3), "messages read by the slowest of the quick": min(one.messages for one in readers[1:]),
        "runs known to each": min(len(one.known) for one in readers[1:]), "cut off": sum(bool(one.cut_off) for one in readers),
    }  # fmt: skip


if __name__ == "__main__":
    main()
