"""Kill the worker again and again while it trains three runs.

    python -m tests.benchmarks.worker_kills [--kills 30] [--clients]

The library must have each result once, with the same bits as an uninterrupted training run. With --clients, the
benchmark kills watching clients instead of the worker.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

os.environ["OMP_NUM_THREADS"] = "1"  # otherwise the bits also depend on the load

import softprompt
from softprompt import Library
from softprompt.config import TrainConfig
from tests.worker_process import Home, same_bits, saved_prompt

PROMPTS = (
    "a red fox asleep in deep snow under tall pine trees at dusk",
    "a small wooden boat drifting on a foggy river beside an old stone mill",
    "an old lighthouse on a cliff above a stormy sea at night",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--clients", action="store_true")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    # runs with different token counts never share a batch, which would change their bits
    settings = [{"tokens": tokens, "steps": options.steps, "seed": 7} for tokens in (2, 3, 4)]
    encoder = softprompt.load_encoder("mini", device="cpu")
    references = [
        softprompt.train(encoder, prompt, TrainConfig(**own)) for prompt, own in zip(PROMPTS, settings, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        try:
            runs = [home.submit(prompt, **own) for prompt, own in zip(PROMPTS, settings, strict=True)]
            for i in range(options.kills):
                time.sleep(rng.uniform(0.2, 9))
                if options.clients:
                    watcher = subprocess.Popen(
                        [sys.executable, "-m", "softprompt_tui", "attach", runs[i % 3]], stdout=subprocess.DEVNULL
                    )
                    time.sleep(rng.uniform(0.1, 1.5))
                    watcher.send_signal(signal.SIGKILL)
                    watcher.wait()
                else:
                    home.kill()
                    home.client().close()
                records = [home.read_run(run) for run in runs]
                print(i + 1, [f"{record.state} {record.latest.get('step', 0)}" for record in records], flush=True)
            for run, reference in zip(runs, references, strict=True):
                record = home.wait_until_ended(run, timeout=600)
                print(run, record.state, "same bits" if same_bits(saved_prompt(run), reference) else "OTHER BITS")
                assert record.state == "done"
                assert same_bits(saved_prompt(run), reference)
            assert sorted(entry.id for entry in Library().list().entries) == sorted(runs)
            print(f"{options.kills} kills: the library has each of the three results once, with the same bits")
        finally:
            home.close()


if __name__ == "__main__":
    main()
