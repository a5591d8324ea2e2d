"""Measure how fast a library of 100,000 entries is.

    python -m tests.benchmarks.library_scale [--entries N] [--home FOLDER]

The entries have random words and numbers, and the size of real entries (4 tokens of width 768, 300 steps). Prints the
minimum and the median of several times. Lines with "whole process" include the start of the process.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from softprompt import Library
from softprompt.library.entry import Entry, pack
from tests.library_model import a_prompt

SYLLABLES = "ba ce di fo gu ha ji ko lu ma ne pi qua ro su ta ve wi xo ya zen lor mir tan".split()


def create_entries(folder: Path, count: int) -> None:
    """Write the entries as files. Does not sync each file, because the benchmark does not measure this step."""
    rng, array_rng = random.Random(0), np.random.default_rng(0)
    vocabulary = ["".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))) for _ in range(8000)] + [
        "lake",
        "sunrise",
        "fox",
    ]
    folder.mkdir(parents=True)
    vectors = array_rng.standard_normal((4, 768), dtype=np.float32)
    losses = array_rng.random(300, dtype=np.float32)
    first_created = datetime(2026, 1, 1, tzinfo=UTC)
    for i in range(count):
        words = rng.choices(vocabulary, k=12)
        prompt = a_prompt(
            hard_prompt=" ".join(words),
            name=f"{words[0]}-{words[1]}-{i}",
            vectors=vectors,
            target=vectors[0],
            losses=losses,
            similarities=losses,
            similarity=rng.random(),
            readout_text=" ".join(words[2:6]),
            created=(first_created + timedelta(seconds=i)).isoformat(timespec="seconds"),
        )
        entry = Entry(
            f"{rng.getrandbits(64):016x}",
            1,
            prompt,
            tags=tuple(rng.sample(("portrait", "night", "style:photo", "draft"), 2)),
        )
        (folder / f"{entry.id}.1.safetensors").write_bytes(pack(entry))


def measure(label: str, repetitions: int, call: Callable[[], object]) -> None:
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    print(f"{label:<58} min {min(times) * 1000:8.1f} ms   median {statistics.median(times) * 1000:8.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--home", type=Path, help="a permanent folder; the benchmark uses the entries that it has")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = options.home or Path(scratch)
        os.environ["SOFTPROMPT_HOME"] = str(home)
        library = Library()
        if not library.entries.is_dir():
            measure(f"create {options.entries:,} entries", 1, lambda: create_entries(library.entries, options.entries))

        def command(*args: str) -> Callable[[], object]:
            return lambda: subprocess.run(
                [sys.executable, "-m", "softprompt_tui", *args], check=True, capture_output=True
            )

        def search(words: str, **query: str) -> Callable[[], object]:
            return lambda: Library().list(words, limit=100, **query)  # type: ignore[arg-type]

        measure("rebuild, in this process", 1, library.rebuild)
        measure("list, whole process", 7, command("list"))
        measure("list lake sunrise, whole process", 7, command("list", "lake", "sunrise"))
        measure(
            "Python without a program, whole process",
            7,
            lambda: subprocess.run([sys.executable, "-c", "pass"], check=True),
        )
        for words in ("lake", "lake sunrise", "l", "ba", "portrait", "fox ma ne", "nothinglikethis"):
            measure(f"search {words!r}", 7, search(words))
        measure("search 'la' by similarity", 7, search("la", sort="similarity"))
        measure("list by name, tag night", 7, lambda: Library().list(sort="name", tags=["night"], limit=100))
        measure("find by name", 7, lambda: Library().find(library.list(limit=1).entries[0].name))
        measure("save an entry", 3, lambda: library.save(a_prompt()))
        measure("list after a save, whole process", 1, command("list"))
        measure("check", 1, library.check)


if __name__ == "__main__":
    main()
