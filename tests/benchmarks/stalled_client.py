"""What clients that stop reading cost a training: python -m tests.benchmarks.stalled_client [--rounds 3] [--seconds 30] [--clients 1].

The same training is timed by turns without and with clients that have said hello and then read nothing; the rates are compared.
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


def steps_a_second(run: str, seconds: float) -> float:
    """From the first report to the last of a stretch, by the training's own clock."""

    def latest() -> dict[str, float]:
        return dict(RunFolder(runs_folder() / run).read().latest)

    first = latest()
    time.sleep(seconds)
    last = latest()
    return (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])


def stalled() -> socket.socket:
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
            alone, beside = 0.0, 0.0
            for _ in range(options.rounds):
                without = steps_a_second(run, options.seconds)
                clients = [stalled() for _ in range(options.clients)]
                with_them = steps_a_second(run, options.seconds)
                for client in clients:
                    client.close()
                alone, beside = alone + without, beside + with_them
                print(json.dumps({"steps/s without": round(without, 1), "with": round(with_them, 1)}), flush=True)
            print(f"{options.clients} stalled for {options.seconds:.0f} s: {beside / alone:.3f} of the speed without")
        finally:
            home.close()


if __name__ == "__main__":
    main()
