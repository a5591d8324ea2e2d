"""Measure how trainings through the API share the cores: with each other, and with other programs.

    python -m tests.benchmarks.neighbours [--steps 60] [--rounds 3] [--core FOLDER] [--only NAME]

Each case compares the time of a step with the fair share: the time that one thread takes alone, multiplied by the
number of programs per core. `--core` measures another version of the package, from its folder `core`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from softprompt.system.threads import cores

CORE = Path(__file__).parents[2] / "core"
SECONDS_BETWEEN = 2.0
TIMEOUT_SECONDS = 60.0
CHILD = """
import json, multiprocessing, sys, threading, time
kind, members, steps, torch_first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "True"
if torch_first:
    import torch
import softprompt

encoder = softprompt.load_encoder("mini", "cpu")

def train(steps):
    points = [(time.time(), 0)]
    text = "a red fox asleep in deep snow under tall pine trees"
    for report in softprompt.iter_train(encoder, text, tokens=3, steps=steps, interval=5):
        points.append((time.time(), report.step))
    return points

def measure(barrier):
    barrier.wait()
    results.put(train(steps))

print("ready", flush=True)
sys.stdin.readline()
if kind == "program":
    series = [train(steps)]
else:
    context = multiprocessing.get_context("fork") if kind == "fork" else None
    results = (context or multiprocessing).SimpleQueue()
    start = context.Process if context else threading.Thread
    barrier = (context or threading).Barrier(members)
    workers = [start(target=measure, args=[barrier], daemon=True) for _ in range(members)]
    for worker in workers:
        worker.start()
    series = [results.get() for _ in workers]
print(json.dumps(series), flush=True)
"""
BUSY = "import os; parent = os.getppid()\nwhile os.getppid() == parent: pass"


@dataclass(frozen=True)
class Case:
    """`programs` processes, each with `members` trainings, beside `load` busy processes.

    `delayed`: the first training starts alone. `torch_first`: programs import torch before softprompt.
    """

    name: str
    programs: int = 1
    kind: str = "program"
    members: int = 1
    load: int = 0
    delayed: bool = False
    torch_first: bool = False

    @property
    def share(self) -> float:
        """The fair share, in multiples of the time that one thread takes alone."""
        return max(1.0, (self.programs * self.members + self.load) / cores())


CASES = [
    Case("alone"),
    Case("2 programs", 2),
    Case("4 programs", 4),
    Case("4 programs, torch first", 4, torch_first=True),
    Case("1 program, then 3 more", 4, delayed=True),
    Case("1 program, then 3 more, torch first", 4, delayed=True, torch_first=True),
    Case("beside 8 busy processes", load=8),
    Case("4 forked members", kind="fork", members=4),
    Case("4 threads", kind="thread", members=4),
]

Points = list[tuple[float, float]]  # (time, steps done)


def measure(case: Case, core: Path, steps: int, threads: int) -> list[float]:
    """Return the seconds per step of each training while all of them run."""
    environment = {**os.environ, "PYTHONPATH": str(core), "OMP_NUM_THREADS": str(threads)}
    busy = [subprocess.Popen([sys.executable, "-c", BUSY], text=True) for _ in range(case.load)]
    programs: list[subprocess.Popen[str]] = []
    try:
        for number in range(case.programs):
            count = steps * 3 if case.delayed and not number else steps
            arguments = [case.kind, str(case.members), str(count), str(case.torch_first)]
            programs.append(
                subprocess.Popen(
                    [sys.executable, "-c", CHILD, *arguments],
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        for number, program in enumerate(programs):
            assert program.stdin is not None
            program.stdin.write("go\n")
            program.stdin.flush()
            if case.delayed and not number:
                time.sleep(SECONDS_BETWEEN)
        series: list[Points] = []
        for program in programs:
            output, _ = program.communicate(timeout=TIMEOUT_SECONDS)
            series += json.loads(output.splitlines()[-1])
    finally:
        for process in busy + programs:
            process.kill()
            process.wait()
    begin, end = max(points[0][0] for points in series), min(points[-1][0] for points in series)
    return [(end - begin) / (steps_at(points, end) - steps_at(points, begin)) for points in series]


def steps_at(points: Points, moment: float) -> float:
    """Return how many steps were done at a moment, between two reports in proportion."""
    for (began, before), (ended, after) in pairwise(points):
        if moment <= ended:
            return before + (after - before) * (moment - began) / (ended - began)
    return points[-1][1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--core", type=Path, default=CORE)
    parser.add_argument("--only", default="", help="measure only the cases whose name contains this")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no program keeps running
    single = min(measure(CASES[0], options.core, options.steps, 1)[0] for _ in range(options.rounds))
    print(f"one thread alone: {single * 1000:.1f} ms per step; {cores()} cores, torch's limit is {cores()} threads")
    print(f"{'':38}{'ms per step':>12}{'slowest':>9}{'fair share':>12}{'ratio':>7}{'slowest':>9}")
    for case in CASES:
        if options.only not in case.name:
            continue
        means, slowest = [], []
        try:
            for _ in range(options.rounds):
                seconds = measure(case, options.core, options.steps, cores())
                means.append(statistics.mean(seconds))
                slowest.append(max(seconds))
        except subprocess.TimeoutExpired:
            print(f"{case.name:38}{f'no end within {TIMEOUT_SECONDS:.0f} s':>12}")
            continue
        mean, worst, fair = statistics.median(means), statistics.median(slowest), single * case.share
        print(
            f"{case.name:38}{mean * 1000:12.1f}{worst * 1000:9.1f}{fair * 1000:12.1f}{mean / fair:7.2f}"
            f"{worst / fair:9.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
