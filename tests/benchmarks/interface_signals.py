"""Ends the interface by signals, again and again: python -m tests.benchmarks.interface_signals [--times 50].

After each, the terminal's modes must be what they were, the cursor visible, and no process left but the worker.
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
import time
from pathlib import Path

from tests.pty_screen import Terminal
from tests.worker_process import Home


def ours(home: str) -> set[int]:
    """The processes of this home."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SOFTPROMPT_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
        except OSError:
            continue
    return found - {os.getpid()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        try:
            home.submit("a red fox asleep in deep snow", tokens=2, steps=100_000)
            for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                slowest = 0.0
                for _ in range(options.times):
                    with Terminal() as t:
                        t.wait_for("training", within=60)
                        began = time.monotonic()
                        t.send_signal(number)
                        t.wait_for_exit(2)
                        slowest = max(slowest, time.monotonic() - began)
                        assert t.modes() == t.initial_modes
                        assert not t.screen.cursor.hidden
                    worker = home.pid()
                    assert worker is not None
                    assert ours(folder) <= {worker}
                print(
                    f"{number.name}: {options.times} times, terminal as before, nothing left but the worker, slowest end {slowest:.2f} s",
                    flush=True,
                )
        finally:
            home.close()


if __name__ == "__main__":
    main()
