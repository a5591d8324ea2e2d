"""Kills a batch again and again while it has a thousand prompts to train: each must be in the file of results and in the library, once.

    python -m tests.benchmarks.batch_kills [--prompts 1000] [--kills 20] [--memory 100,1000]

With --memory it is not killed; the peak memory of batches of so many prompts is told instead.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice, product
from pathlib import Path

from softprompt import Library

WORDS = (
    ("a small", "an old", "a bright", "a broken", "a painted"),
    ("wooden boat", "red fox", "stone bridge", "steam train", "glass tower", "sleeping dog", "market stall"),
    (
        "beside a frozen lake",
        "in tall summer grass",
        "under heavy clouds",
        "at the end of a quiet street",
        "on a hill above the sea",
    ),
    ("at dawn", "in thick fog", "after the rain", "by candlelight", "in late autumn", "on a busy morning"),
)


def prompts(count: int) -> list[str]:
    """So many prompts, all different, in an order that has nothing to do with their words."""
    made = [" ".join(words) for words in product(*WORDS)]
    random.Random(0).shuffle(made)
    return list(islice((f"{text}, number {i}" if i else text for i in range(count) for text in made), count))


def peak_of(pid: int) -> int:
    """The most memory that a process has had, in bytes; 0 where it is gone (proc(5))."""
    try:
        (line,) = [one for one in Path(f"/proc/{pid}/status").read_text().splitlines() if one.startswith("VmHWM")]
        return int(line.split()[1]) << 10
    except (OSError, ValueError):
        return 0


def run(args: list[str], home: Path, within: float | None = None) -> tuple[int, int, float]:
    """(exit code, or -9 where it was killed after `within` seconds; peak memory in bytes; seconds)."""
    began, peak = time.monotonic(), 0
    with (home / "said").open("ab") as said:
        process = subprocess.Popen([sys.executable, "-m", "softprompt_tui", "batch", *args], stderr=said)
        while process.poll() is None:
            peak = max(peak, peak_of(process.pid))
            if within is not None and time.monotonic() - began >= within:
                process.kill()
            time.sleep(0.02)
    return process.wait(), peak, time.monotonic() - began


def check(texts: list[str], out: Path) -> None:
    results = [json.loads(line) for line in out.read_text().splitlines()]
    entries = Library().list().entries
    assert Counter(result["prompt"] for result in results) == Counter(texts), "the file has not each prompt once"
    assert not any(result["error"] for result in results)
    assert sorted(result["id"] for result in results) == sorted(entry.id for entry in entries), (
        "the library has not what the file has"
    )
    assert Counter(entry.hard_prompt for entry in entries) == Counter(texts), "the library has not each prompt once"
    assert Library().check().damaged == []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--most", type=float, default=25.0, help="seconds until a kill, at most")
    parser.add_argument("--memory", type=lambda text: [int(one) for one in text.split(",")])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "settings", nargs="*", default=["-k", "3", "--steps", "100"], help="after --: what batch is called with"
    )
    options = parser.parse_args()
    chance = random.Random(options.seed)
    for count in options.memory or [options.prompts]:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            os.environ["SOFTPROMPT_HOME"] = folder
            file, out = home / "prompts.txt", home / "results.jsonl"
            texts = prompts(count)
            file.write_text("\n".join(texts))
            args = [str(file), "--out", str(out), *options.settings]
            highest = 0
            for i in range(0 if options.memory else options.kills):
                code, peak, seconds = run(args, home, chance.uniform(0.2, options.most))
                highest = max(highest, peak)
                lines = len(out.read_bytes().splitlines()) if out.exists() else 0
                print(
                    f"kill {i + 1}: {'killed' if code < 0 else f'ended with {code}'} after {seconds:.1f} s, {lines} results",
                    flush=True,
                )
            code, peak, seconds = run(args, home)
            assert code == 0, (home / "said").read_text()
            check(texts, out)
            print((home / "said").read_text().splitlines()[-1])
            print(
                f"{count} prompts: {count} results, none twice; the last run took {seconds:.1f} s; peak memory {max(peak, highest) / 2**20:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
