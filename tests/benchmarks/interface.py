"""Measure how fast the interface responds and how much it draws, on a pseudo-terminal with a real worker.

    python -m tests.benchmarks.interface [--keys 200] [--seconds 20] [--entries FOLDER] [--beside-batch]

Prints the time to the first paint, beside that of a bare Textual application, the time until the worker has loaded its
model, the delay of keys during training, the bytes per second sent to the terminal, both during training and while
nothing changes, and the processor time of an idle interface. `--entries` is a home with a large library, such as
library_scale creates. With `--beside-batch` a `softprompt-tui batch` trains at the same time, as in another terminal,
so that there are more threads than cores.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from softprompt.bench.prompts import shipped_prompts
from softprompt.worker import protocol as p
from tests.pty_screen import Terminal
from tests.worker_process import Home

BARE_APPLICATION = """
from textual.app import App
from textual.widgets import Static

class Bare(App):
    def compose(self):
        yield Static("a single line")

Bare().run()
"""
REPETITIONS = 50  # of the shipped prompts: more than the batch can train during the benchmark


def left_half(t: Terminal) -> tuple[str, ...]:
    """Return the left half of the screen, with each row's colour: moving a list's cursor changes no letter."""
    return tuple(line[:38] + t.screen.buffer[y][4].bg for y, line in enumerate(t.screen.display))


def measure_delays(t: Terminal, keys: list[str]) -> list[float]:
    """Return the milliseconds from each key to the change on the left half of the screen.

    Reads all pending output before each key.
    """
    delays = []
    for key in keys:
        while t.read(0.02):
            pass
        start = time.perf_counter()
        before = left_half(t)
        t.press(key)
        while left_half(t) == before and time.perf_counter() - start < 2:
            t.read(0.5)
        delays.append((time.perf_counter() - start) * 1000)
    return delays


def print_delays(label: str, delays: list[float]) -> None:
    ordered = sorted(delays)
    print(
        f"{label:<44} median {statistics.median(delays):6.1f} ms   "
        f"95th percentile {ordered[int(len(delays) * 0.95)]:6.1f} ms   worst {ordered[-1]:6.1f} ms",
        flush=True,
    )


def bytes_per_second(t: Terminal, seconds: float) -> float:
    deadline, before = time.monotonic() + seconds, t.byte_count
    while (remaining := deadline - time.monotonic()) > 0:
        t.read(remaining)
    return (t.byte_count - before) / seconds


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def batch_beside(folder: Path) -> Iterator[None]:
    """Run a batch of the shipped prompts that has already started to train. Kill it at the end of the context."""
    prompts, log = folder / "prompts.txt", folder / "batch.log"
    prompts.write_text("\n".join(shipped_prompts() * REPETITIONS))
    batch = [sys.executable, "-m", "softprompt_tui", "batch", str(prompts), "-k", "3"]
    # the shell leads the session, as in a terminal: some kernels distribute processor time by session
    shell = ["sh", "-c", '"$@"; exit $?', "sh"]
    results, has_result = list[bytes](), threading.Event()
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [*shell, *batch], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
        )

    def read_results() -> None:
        for line in process.stdout or ():
            results.append(line)
            has_result.set()
        has_result.set()

    reader = threading.Thread(target=read_results)
    reader.start()
    try:
        has_result.wait()
        assert process.poll() is None, f"the batch has ended: {log.read_text()}"
        before = len(results)
        yield
        assert process.poll() is None, f"the batch ended before the measurement: {log.read_text()}"
        print(f"{'prompts that the batch trained meanwhile':<44} {len(results) - before}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--entries", type=Path)
    parser.add_argument("--beside-batch", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = str(options.entries or folder)
        home = Home(os.environ.__setitem__)
        try:
            with batch_beside(Path(folder)) if options.beside_batch else nullcontext():
                measure(home, options)
        finally:
            home.close()


def measure_bare() -> float:
    """Return the milliseconds to the first paint of a Textual application with a single line."""
    start = time.perf_counter()
    with Terminal(sys.executable, "-c", BARE_APPLICATION) as t:
        t.wait_for("a single line")
        return (time.perf_counter() - start) * 1000


def measure(home: Home, options: argparse.Namespace) -> None:
    paints, bare = [], []
    for i in range(5):
        bare.append(measure_bare())
        start = time.perf_counter()
        with Terminal() as t:
            t.wait_for("Prompt", "Loss")
            paints.append((time.perf_counter() - start) * 1000)
            if i == 0:
                t.wait_for("worker ready", within=60)
                print(f"{'worker ready after':<44} {time.perf_counter() - start:.2f} s")
                with home.client() as client:
                    while not client.request(p.Status())["models"]:
                        t.read(0.05)
                print(f"{'mini loaded after':<44} {time.perf_counter() - start:.2f} s")
    print_delays("first paint, from the command's start", paints)
    print_delays("first paint of a bare Textual application", bare)
    print(f"{'ratio of the medians':<44} {statistics.median(paints) / statistics.median(bare):.2f}")
    with Terminal() as t:
        t.wait_for("worker ready", within=60)
        t.settle()
        while t.read(4):  # until the notices have disappeared
            pass
        before = processor_seconds(t.process.pid)
        print(f"{'bytes per second, nothing changing':<44} {bytes_per_second(t, options.seconds):.0f}")
        print(
            f"{'processor, nothing changing':<44} "
            f"{(processor_seconds(t.process.pid) - before) / options.seconds * 100:.2f} %"
        )
        run = home.submit("a red fox asleep in deep snow", tokens=4, steps=100_000, restarts=4)
        t.wait_for(r"(step |)\d{2,}( of |/)100000", within=120)
        t.press("f2")
        print(f"{'bytes per second, training':<44} {bytes_per_second(t, options.seconds):.0f}")
        shown_step, changed, longest, deadline = "", time.monotonic(), 0.0, time.monotonic() + options.seconds
        while (now := time.monotonic()) < deadline:
            t.read(0.05)
            step = re.search(r"(\d+)(?: of |/)100000", t.text)
            if step and step[1] != shown_step:
                longest, shown_step, changed = max(longest, now - changed), step[1], now
        print(f"{'longest time without a new step':<44} {longest:.2f} s")
        letters = "abcdefghiklmnoprstuvw"
        rng = random.Random(0)
        print_delays(
            "a key in the editor, while training",
            measure_delays(t, [rng.choice(letters) for _ in range(options.keys)]),
        )
        if options.entries:  # in an empty library these keys change nothing
            t.press("f4")
            t.wait_until_hidden("F8 Settings")
            print_delays(
                "a key in the library, while training",
                measure_delays(t, ["j"] * 20 + [rng.choice("jk") for _ in range(options.keys - 20)]),
            )
        start = time.perf_counter()
        home.kill()
        t.wait_for("no worker")
        print(f"{'worker killed, noticed after':<44} {time.perf_counter() - start:.2f} s")
        t.press("ctrl+r")
        # only the first line counts: the panes still show the training from before
        t.wait_for(r"^ ?● (softprompt-tui  ·  )?training\b", within=60)
        print(f"{'training continues after one key, after':<44} {time.perf_counter() - start:.2f} s")
        with home.client() as client:
            client.request(p.Stop(run))


if __name__ == "__main__":
    main()
