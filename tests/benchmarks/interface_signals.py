"""End the interface with signals, again and again: python -m tests.benchmarks.interface_signals [--times 50].

After each signal the terminal must have its initial modes and a visible cursor, and only the worker may still run.
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


def processes_of(home: str) -> set[int]:
    """Return the ids of the processes that use a home, except this one."""
    pids = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SOFTPROMPT_HOME={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                pids.add(int(folder.name))
        except OSError:
            continue
    return pids - {os.getpid()}


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
                        start = time.monotonic()
                        t.send_signal(number)
                        t.wait_for_exit(2)
                        slowest = max(slowest, time.monotonic() - start)
                        assert t.modes() == t.initial_modes
                        assert not t.screen.cursor.hidden
                    worker = home.pid()
                    assert worker is not None
                    assert processes_of(folder) <= {worker}
                print(
                    f"{number.name}: {options.times} times, terminal restored, only the worker still runs, "
                    f"slowest end {slowest:.2f} s",
                    flush=True,
                )
        finally:
            home.close()


if __name__ == "__main__":
    main()
