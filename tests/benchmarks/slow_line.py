"""Measure the interface on a slow line, such as a serial console: `python -m tests.benchmarks.slow_line [--rate 960]`.

The terminal takes `--rate` bytes a second; 960 are 9,600 bit/s. Prints when the first screen is complete and how many
bytes that took, how long keys take to show, before and during a training, and the bytes per second of the training.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

from tests.pty_screen import Terminal
from tests.worker_process import Home

MAX_SECONDS = 120.0
TRAINING_SECONDS = 25.0


def echo_seconds(t: Terminal, letter: str) -> float:
    """Type a letter that is on the screen less often than afterwards. Return the seconds until it is shown."""
    start, before = time.monotonic(), t.text.count(letter)
    t.press(letter)
    while t.text.count(letter) <= before and time.monotonic() - start < MAX_SECONDS:
        t.read(0.05)
    return time.monotonic() - start


def measure(rate: float) -> None:
    start = time.monotonic()
    with Terminal(bytes_per_second=rate) as t:
        t.wait_for("Prompt", "Readout", within=MAX_SECONDS)
        print(f"{'first panes after':<36} {time.monotonic() - start:.1f} s, {t.byte_count:,} bytes")
        t.wait_for("13 of 77 tokens", within=MAX_SECONDS)
        print(f"{'first screen complete after':<36} {time.monotonic() - start:.1f} s, {t.byte_count:,} bytes")
        while t.read(3):
            pass
        print(f"{'a key, nothing training':<36} {', '.join(f'{echo_seconds(t, letter):.1f}' for letter in 'xyz')} s")
        start = time.monotonic()
        t.press("ctrl+t")
        t.wait_for(r"best 0\.\d+", within=MAX_SECONDS)
        print(f"{'first figures of a training after':<36} {time.monotonic() - start:.1f} s")
        start, before = time.monotonic(), t.byte_count
        print(f"{'a key, while training':<36} {', '.join(f'{echo_seconds(t, letter):.1f}' for letter in 'QWV')} s")
        while (left := TRAINING_SECONDS - (time.monotonic() - start)) > 0:
            t.read(left)
        print(f"{'bytes per second, training':<36} {(t.byte_count - before) / (time.monotonic() - start):.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=960.0, help="bytes per second")
    rate = parser.parse_args().rate
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        try:
            measure(rate)
        finally:
            home.close()


if __name__ == "__main__":
    main()
