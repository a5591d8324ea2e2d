"""How quick keys are while hostile files are imported beside the interface: python -m tests.benchmarks.hostile_keys [--keys 200]."""

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
                with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as importing:
                    assert importing.stdout
                    importing.stdout.readline()  # the first file is done: from here on they are read one after another
                    chance = random.Random(0)
                    print_delays(
                        "a key in the editor",
                        measure_delays(t, [chance.choice("abcdefghiklmnop") for _ in range(options.keys)]),
                    )
                    assert importing.poll() is None, "the files were all read before the keys were pressed"
                    importing.kill()
        finally:
            home.close()


if __name__ == "__main__":
    main()
