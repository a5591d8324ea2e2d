"""Measure how much clients that stop reading slow down training.

    python -m tests.benchmarks.stalled_client [--rounds 3] [--seconds 30] [--clients 1]

Compares the speed of training, alternating without and with clients that connect and then read nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import tempfile
import time

from softprompt.worker import protocol as p
from softprompt.worker.endpoint import Endpoint
from softprompt.worker.run_folder import RunFolder, runs_folder
from tests.worker_process import Home, wait_until

FOX = "a red fox asleep in deep snow under tall pine trees at dusk"


def steps_per_second(run: str, seconds: float) -> float:
    """Return the speed between two reports, by the training's own clock."""

    def latest() -> dict[str, float]:
        return dict(RunFolder(runs_folder() / run).read().latest)

    first = latest()
    time.sleep(seconds)
    last = latest()
    return (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


def connect_stalled_client() -> socket.socket:
    """Connect, send the greeting and never read."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(os.fspath(Endpoint().socket))
    connection.sendall(p.encode(p.hello()))
    return connection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        try:
            run = home.submit(FOX, tokens=3, steps=100_000)
            wait_until(lambda: (runs_folder() / run / "checkpoint").exists(), 120)
            total_without, total_with = 0.0, 0.0
            for _ in range(options.rounds):
                rate_without = steps_per_second(run, options.seconds)
                clients = [connect_stalled_client() for _ in range(options.clients)]
                rate_with = steps_per_second(run, options.seconds)
                for client in clients:
                    client.close()
                total_without, total_with = total_without + rate_without, total_with + rate_with
                print(json.dumps({"steps/s without": round(rate_without, 1), "with": round(rate_with, 1)}), flush=True)
            print(
                f"{options.clients} stalled clients for {options.seconds:.0f} s: "
                f"{total_with / total_without:.3f} of the speed without"
            )
        finally:
            home.close()


if __name__ == "__main__":
    main()
