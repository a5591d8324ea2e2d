"""Compare random keys in bursts with the same keys one by one.

python -m tests.benchmarks.key_bursts [--bursts 60] [--first 0]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.bursts import random_keys, start_pair

BURSTS_PER_HOME = 10  # then both interfaces start again with a new home
LETTER_COUNT = 400


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bursts", type=int, default=60)
    parser.add_argument("--first", type=int, default=0, help="seed of the first burst")
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel pairs of interfaces")
    options = parser.parse_args()
    start, seeds = time.monotonic(), range(options.first, options.first + options.bursts)
    differences = 0
    with ProcessPoolExecutor(options.jobs) as pool:
        homes = [seeds[first : first + BURSTS_PER_HOME] for first in range(0, len(seeds), BURSTS_PER_HOME)]
        for difference in pool.map(find_first_difference, homes):
            if difference:
                differences += 1
                print(difference, flush=True)
    print(f"{letters_per_second():.0f} letters per second when a burst goes into the prompt")
    print(f"{len(seeds)} bursts of 40 keys, {differences} gave a different result; {time.monotonic() - start:.0f} s")
    sys.exit(bool(differences))


def find_first_difference(seeds: range) -> str:
    """Type the bursts of these seeds one after another.

    Returns:
        A description of the first difference, or "". Later bursts are not compared, because they would differ too.
    """
    with tempfile.TemporaryDirectory(prefix="sp") as folder, start_pair(Path(folder)) as both:
        for seed in seeds:
            keys = random_keys(seed)
            both.type(keys)
            if difference := both.find_difference():
                return f"seed {seed}: {' '.join(keys)}\n{difference}"
        both.quit()
    return ""


def letters_per_second() -> float:
    """Return the speed of typing a burst into the prompt, as the median of five bursts."""
    with tempfile.TemporaryDirectory(prefix="sp") as folder, start_pair(Path(folder)) as both:
        speeds = []
        for i in range(5):
            end = f"Z{i}Q"
            start = time.monotonic()
            both.burst.press("ab cd " * (LETTER_COUNT // 6) + end)
            both.burst.wait_for(end)
            speeds.append(LETTER_COUNT / (time.monotonic() - start))
            both.burst.press("ctrl+u")
            both.burst.settle()
    return sorted(speeds)[len(speeds) // 2]


if __name__ == "__main__":
    main()
