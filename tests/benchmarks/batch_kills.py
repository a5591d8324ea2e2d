"""Kill a batch of a thousand prompts again and again. Each prompt must be once in the output and once in the library.

    python -m tests.benchmarks.batch_kills [--prompts 1000] [--kills 20] [--memory 100,1000]

With --memory nothing is killed. Instead, the benchmark prints the peak memory of batches with so many prompts.
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
    """Return `count` different prompts in random order."""
    texts = [" ".join(words) for words in product(*WORDS)]
    random.Random(0).shuffle(texts)
    return list(islice((f"{text}, number {i}" if i else text for i in range(count) for text in texts), count))


def peak_bytes(pid: int) -> int:
    """Return the peak memory of a process, or 0 if the process has ended (proc(5))."""
    try:
        (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) << 10
    except (OSError, ValueError):
        return 0


def run_batch(args: list[str], home: Path, kill_after: float | None = None) -> tuple[int, int, float]:
    """Run a batch, and kill it after `kill_after` seconds.

    Returns:
        The exit code (-9 if killed), the peak memory in bytes, and the seconds it took.
    """
    start, peak = time.monotonic(), 0
    with (home / "stderr").open("ab") as stderr:
        process = subprocess.Popen([sys.executable, "-m", "softprompt_tui", "batch", *args], stderr=stderr)
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid))
            if kill_after is not None and time.monotonic() - start >= kill_after:
                process.kill()
            time.sleep(0.02)
    return process.wait(), peak, time.monotonic() - start


def check(texts: list[str], out: Path) -> None:
    results = [json.loads(line) for line in out.read_text().splitlines()]
    entries = Library().list().entries
    assert Counter(result["prompt"] for result in results) == Counter(texts), (
        "a prompt is missing or twice in the output"
    )
    assert not any(result["error"] for result in results)
    assert sorted(result["id"] for result in results) == sorted(entry.id for entry in entries), (
        "the library and the output have different entries"
    )
    assert Counter(entry.hard_prompt for entry in entries) == Counter(texts), "a prompt is missing or twice"
    assert Library().check().damaged == []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--most", type=float, default=25.0, help="maximum seconds until a kill")
    parser.add_argument("--memory", type=lambda text: [int(count) for count in text.split(",")])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "settings", nargs="*", default=["-k", "3", "--steps", "100"], help="after --: options of the batch command"
    )
    options = parser.parse_args()
    rng = random.Random(options.seed)
    for count in options.memory or [options.prompts]:
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            os.environ["SOFTPROMPT_HOME"] = folder
            file, out = home / "prompts.txt", home / "results.jsonl"
            texts = prompts(count)
            file.write_text("\n".join(texts))
            args = [str(file), "--out", str(out), *options.settings]
            max_peak = 0
            for i in range(0 if options.memory else options.kills):
                code, peak, seconds = run_batch(args, home, rng.uniform(0.2, options.most))
                max_peak = max(max_peak, peak)
                lines = len(out.read_bytes().splitlines()) if out.exists() else 0
                print(
                    f"kill {i + 1}: {'killed' if code < 0 else f'ended with {code}'} after {seconds:.1f} s, "
                    f"{lines} results",
                    flush=True,
                )
            code, peak, seconds = run_batch(args, home)
            assert code == 0, (home / "stderr").read_text()
            check(texts, out)
            print((home / "stderr").read_text().splitlines()[-1])
            print(
                f"{count} prompts: {count} results, no duplicates; the last run took {seconds:.1f} s; "
                f"peak memory {max(peak, max_peak) / 2**20:.0f} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
