"""How quick and how quiet the interface is, on a real pseudo-terminal with a real worker:

    python -m tests.benchmarks.interface [--keys 200] [--seconds 20] [--entries FOLDER] [--beside-batch]

Prints the time to the first paint, the time until the worker is warm, the delay of keys while a training runs flat out at batch 64, bytes a
second sent to the terminal while training and while nothing changes, and the idle share of a processor. `--entries` is a home with a large
library (as library_scale makes one), in which keys are pressed too. With `--beside-batch` a `softprompt-tui batch` trains all the while, as if
in another terminal, so that more threads would compute than there are cores.
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

TIMES = 50  # that the batch is given the shipped prompts: more than it can train meanwhile


def left_half(t: Terminal) -> tuple[str, ...]:
    """What the left half of the screen shows, the colour of each row included: a cursor that moves changes no letter."""
    return tuple(line[:38] + t.screen.buffer[y][4].bg for y, line in enumerate(t.screen.display))


def measure_delays(t: Terminal, keys: list[str]) -> list[float]:
    """Milliseconds from each key to the change that it makes on the screen's left half. Between keys the line is drained."""
    took = []
    for key in keys:
        while t.read(0.02):
            pass
        began = time.perf_counter()
        before = left_half(t)
        t.press(key)
        while left_half(t) == before and time.perf_counter() - began < 2:
            t.read(0.5)
        took.append((time.perf_counter() - began) * 1000)
    return took


def print_delays(what: str, took: list[float]) -> None:
    ordered = sorted(took)
    print(
        f"{what:<44} median {statistics.median(took):6.1f} ms   95th percentile {ordered[int(len(took) * 0.95)]:6.1f} ms   worst {ordered[-1]:6.1f} ms",
        flush=True,
    )


def bytes_a_second(t: Terminal, seconds: float) -> float:
    until, before = time.monotonic() + seconds, t.byte_count
    while (left := until - time.monotonic()) > 0:
        t.read(left)
    return (t.byte_count - before) / seconds


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def batch_beside(folder: Path) -> Iterator[None]:
    """A batch of the shipped prompts that has begun to train, ended with the context."""
    prompts, log = folder / "prompts.txt", folder / "batch.log"
    prompts.write_text("\n".join(shipped_prompts() * TIMES))
    batch = [sys.executable, "-m", "softprompt_tui", "batch", str(prompts), "-k", "3"]
    shell = [
        "sh",
        "-c",
        '"$@"; exit $?',
        "sh",
    ]  # the session is the shell's: kernels that share by session know no other
    results, begun = list[bytes](), threading.Event()
    with log.open("wb") as told:
        process = subprocess.Popen(
            [*shell, *batch], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=told, start_new_session=True
        )

    def count() -> None:
        for line in process.stdout or ():
            results.append(line)
            begun.set()
        begun.set()

    counting = threading.Thread(target=count)
    counting.start()
    try:
        begun.wait()
        assert process.poll() is None, f"the batch has ended: {log.read_text()}"
        before = len(results)
        yield
        assert process.poll() is None, f"the batch has ended before the measurement: {log.read_text()}"
        print(f"{'prompts that the batch trained meanwhile':<44} {len(results) - before}")
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its home goes with it
        process.wait()
        counting.join()


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


def measure(home: Home, options: argparse.Namespace) -> None:
    paints = []
    for i in range(5):
        began = time.perf_counter()
        with Terminal() as t:
            t.wait_for("Prompt", "Loss")
            paints.append((time.perf_counter() - began) * 1000)
            if i == 0:
                t.wait_for("worker ready", within=60)
                print(f"{'worker there after':<44} {time.perf_counter() - began:.2f} s")
                with home.client() as client:
                    while not client.request(p.Status())["models"]:
                        t.read(0.05)
                print(f"{'mini loaded after':<44} {time.perf_counter() - began:.2f} s")
    print_delays("first paint, from the command's start", paints)
    with Terminal() as t:
        t.wait_for("worker ready", within=60)
        t.settle()
        while t.read(4):  # notices go
            pass
        idle = processor_seconds(t.process.pid)
        print(f"{'bytes a second, nothing changing':<44} {bytes_a_second(t, options.seconds):.0f}")
        print(
            f"{'processor, nothing changing':<44} {(processor_seconds(t.process.pid) - idle) / options.seconds * 100:.2f} %"
        )
        run = home.submit("a red fox asleep in deep snow", tokens=4, steps=100_000, restarts=4)
        t.wait_for(r"step \d{2,} of 100000", within=120)
        t.press("f2")
        print(f"{'bytes a second, training':<44} {bytes_a_second(t, options.seconds):.0f}")
        seen, last, oldest, over = "", time.monotonic(), 0.0, time.monotonic() + options.seconds
        while (now := time.monotonic()) < over:
            t.read(0.05)
            step = re.search(r"step (\d+) of", t.text)
            if step and step[1] != seen:
                oldest, seen, last = max(oldest, now - last), step[1], now
        print(f"{'the longest that a step stood there':<44} {oldest:.2f} s")
        letters = "abcdefghiklmnoprstuvw"
        chance = random.Random(0)
        print_delays("a key in the editor, while training", measure_delays(t, [chance.choice(letters) for _ in range(options.keys)]))
        t.press("f4")
        t.wait_for("Rename")
        print_delays(
            "a key in the library, while training",
            measure_delays(t, ["j"] * 20 + [chance.choice("jk") for _ in range(options.keys - 20)]),
        )
        began = time.perf_counter()
        home.kill()
        t.wait_for("no worker")
        print(f"{'the worker killed, and that said after':<44} {time.perf_counter() - began:.2f} s")
        t.press("ctrl+r")
        t.wait_for(
            r"^ ?● (softprompt-tui  ·  )?training\b", within=60
        )  # the first line: the panes show what they did before
        print(f"{'by one key it trains on after':<44} {time.perf_counter() - began:.2f} s")
        with home.client() as client:
            client.request(p.Stop(run))


if __name__ == "__main__":
    main()
