"""Measure the memory and time that a batch needs to read its rows, before it trains anything.

python -m tests.benchmarks.batch_rows [--rows 1000,100000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROW = "a photo of a red fox, number {n}, asleep in deep snow"


def file_lines(kind: str, rows: int) -> Iterator[str]:
    """Yield the lines of a file: prompts only, rows with their own settings, or a missing quotation mark."""
    match kind:
        case "text":
            yield from (ROW.format(n=n) for n in range(rows))
        case "seed":
            yield "prompt,seed"
            yield from (f'"{ROW.format(n=n)}",{n}' for n in range(rows))
        case "settings":
            yield "prompt,seed,steps,rate,stop_at"
            yield from (f'"{ROW.format(n=n)}",{n},{1 + n % 99999},{1 + n / rows},{n / rows}' for n in range(rows))
        case "unclosed":
            yield "prompt,seed"
            yield '"no end'
            yield from (f"{ROW.format(n=n).replace(',', ';')},{n}" for n in range(rows))


CHILD = """
import json, sys, time, resource
from softprompt.batches import Batch
from softprompt.errors import FileRefused
start = time.process_time()
try:
    batch = Batch(sys.argv[1])
    outcome = f"{len(batch):,} rows"
    batch.close()
except FileRefused as error:
    outcome = f"refused: {error}"
print(json.dumps([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time() - start, outcome]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rows", type=lambda text: [int(number) for number in text.split(",")], default=[1000, 100_000]
    )
    options = parser.parse_args()
    print(f"{'rows':>9}  {'file':<9} {'size':>9}  {'peak memory':>11}  {'seconds':>7}")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        for kind in ("text", "seed", "settings", "unclosed"):
            for rows in options.rows:
                path = Path(folder) / ("x.txt" if kind == "text" else "x.csv")
                path.write_text("\n".join(file_lines(kind, rows)))
                output = subprocess.run(
                    [sys.executable, "-c", CHILD, str(path)], check=True, capture_output=True
                ).stdout
                kibibytes, seconds, outcome = json.loads(output)
                size = f"{path.stat().st_size / 2**20:.1f} MiB"
                print(
                    f"{rows:>9,}  {kind:<9} {size:>9}  {kibibytes / 2**10:>7.0f} MiB  {seconds:>7.2f}  {outcome[:90]}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
