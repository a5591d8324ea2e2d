"""How quick a library of 100,000 entries is: `python -m tests.benchmarks.library_scale [--entries N] [--home FOLDER]`.

The entries are made of random words and random numbers, in the size of a real one (4 tokens of 768, 300 steps). Times are of whole
processes where it says so, the least and the median of several.
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


def make(folder: Path, count: int) -> None:
    """Writes the entries as files, without syncing each: this is no test of saving."""
    chance, numbers = random.Random(0), np.random.default_rng(0)
    vocabulary = ["".join(chance.choices(SYLLABLES, k=chance.randint(2, 4))) for _ in range(8000)] + [
        "lake",
        "sunrise",
        "fox",
    ]
    folder.mkdir(parents=True)
    vectors = numbers.standard_normal((4, 768), dtype=np.float32)
    losses = numbers.random(300, dtype=np.float32)
    began = datetime(2026, 1, 1, tzinfo=UTC)
    for i in range(count):
        words = chance.choices(vocabulary, k=12)
        prompt = a_prompt(
            hard_prompt=" ".join(words), name=f"{words[0]}-{words[1]}-{i}", vectors=vectors, target=vectors[0], losses=losses, similarities=losses,
            similarity=chance.random(), readout_text=" ".join(words[2:6]), created=(began + timedelta(seconds=i)).isoformat(timespec="seconds"),
        )  # fmt: skip
        entry = Entry(
            f"{chance.getrandbits(64):016x}",
            1,
            prompt,
            tags=tuple(chance.sample(("portrait", "night", "style:photo", "draft"), 2)),
        )
        (folder / f"{entry.id}.1.safetensors").write_bytes(pack(entry))


def timed(what: str, times: int, call: Callable[[], object]) -> None:
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    print(f"{what:<58} least {min(took) * 1000:8.1f} ms   median {statistics.median(took) * 1000:8.1f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--home", type=Path, help="a folder that is kept; entries that lie there are used as they are")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = options.home or Path(scratch)
        os.environ["SOFTPROMPT_HOME"] = str(home)
        library = Library()
        if not library.entries.is_dir():
            timed(f"making {options.entries:,} entries", 1, lambda: make(library.entries, options.entries))

        def command(*args: str) -> Callable[[], object]:
            return lambda: subprocess.run(
                [sys.executable, "-m", "softprompt_tui", *args], check=True, capture_output=True
            )

        def search(words: str, **more: str) -> Callable[[], object]:
            return lambda: Library().list(words, limit=100, **more)  # type: ignore[arg-type]

        timed("rebuild, in this process", 1, library.rebuild)
        timed("list, whole process", 7, command("list"))
        timed("list lake sunrise, whole process", 7, command("list", "lake", "sunrise"))
        timed("python itself, whole process", 7, lambda: subprocess.run([sys.executable, "-c", "pass"], check=True))
        for words in ("lake", "lake sunrise", "l", "ba", "portrait", "fox ma ne", "nothinglikethis"):
            timed(f"search {words!r}", 7, search(words))
        timed("search 'la' by similarity", 7, search("la", sort="similarity"))
        timed("list by name, tag night", 7, lambda: Library().list(sort="name", tags=["night"], limit=100))
        timed("find by name", 7, lambda: Library().find(library.list(limit=1).entries[0].name))
        timed("save one more", 3, lambda: library.save(a_prompt()))
        timed("list after a save, whole process", 1, command("list"))
        timed("check", 1, library.check)


if __name__ == "__main__":
    main()
