"""Measure the delay of keys while another process imports hostile files.

python -m tests.benchmarks.hostile_keys [--keys 200]
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.interface import measure_delays, print_delays
from tests.pty_screen import Terminal
from tests.worker_process import Home

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        command = [sys.executable, "-m", "tests.benchmarks.hostile_corpus"]
        try:
            with Terminal() as t:
                t.wait_for("worker ready", within=60)
                with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as importer:
                    assert importer.stdout
                    importer.stdout.readline()  # the first file is done, and the imports now follow one another
                    rng = random.Random(0)
                    print_delays(
                        "a key in the editor",
                        measure_delays(t, [rng.choice("abcdefghiklmnop") for _ in range(options.keys)]),
                    )
                    assert importer.poll() is None, "all files were read before the last key was pressed"
                    importer.kill()
        finally:
            home.close()


if __name__ == "__main__":
    main()
