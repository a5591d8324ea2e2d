"""Random keys in bursts and one by one, side by side: python -m tests.benchmarks.key_bursts [--bursts 60] [--first 0]."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.bursts import start_pair, random_keys

PER_HOME = 10  # bursts before both interfaces start again from a whole library
LETTERS = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="the seed of the first burst")
    parser.add_argument("--jobs", type=int, default=2, help="pairs of interfaces at once")
    options = parser.parse_args()
    began, seeds = time.monotonic(), range(options.first, options.first + options.bursts)
    different = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        homes = [seeds[start : start + PER_HOME] for start in range(0, len(seeds), PER_HOME)]
        for difference in pool.map(first_difference, homes):
            if difference:
                different += 1
                print(difference, flush=True)
    print(f"{letters_a_second():.0f} letters a second in a burst into the prompt")
    print(f"{len(seeds)} bursts of 40 keys, {different} came to something else; {time.monotonic() - began:.0f} s")
    sys.exit(bool(different))


def first_difference(seeds: range) -> str:
    """Type the bursts of these seeds one after another; what differs first, "" if nothing does. What follows would differ too."""
    with tempfile.TemporaryDirectory(prefix="sp") as folder, start_pair(Path(folder)) as both:
        for seed in seeds:
            keys = random_keys(seed)
            both.type(keys)
            if difference := both.difference():
                return f"seed {seed}: {' '.join(keys)}\n{difference}"
        both.quit()
    return ""


def letters_a_second() -> float:
    """The median of five bursts."""
    with tempfile.TemporaryDirectory(prefix="sp") as folder, start_pair(Path(folder)) as both:
        speeds = []
        for turn in range(5):
            end = f"Z{turn}Q"
            began = time.monotonic()
            both.burst.press("ab cd " * (LETTERS // 6) + end)
            both.burst.wait_for(end)
            speeds.append(LETTERS / (time.monotonic() - began))
            both.burst.press("ctrl+u")
            both.burst.settle()
    return sorted(speeds)[len(speeds) // 2]


if __name__ == "__main__":
    main()
