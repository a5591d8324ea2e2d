"""Kill the worker again and again while it trains three runs, or one of a language model.

    python -m tests.benchmarks.worker_kills [--kills 30] [--clients]
    python -m tests.benchmarks.worker_kills --model smollm2-q4 --steps 40 --kills 20 --seconds 5 20

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
from softprompt.config import config_for
from softprompt.encoders.catalog import LOCAL_PREFIX
from softprompt.encoders.loading import load_model
from tests.worker_process import Home, same_bits, saved_prompt

PROMPTS = (
    "a red fox asleep in deep snow under tall pine trees at dusk",
    "a small wooden boat drifting on a foggy river beside an old stone mill",
    "an old lighthouse on a cliff above a stormy sea at night",
)
SAILOR = "You are a gruff old sailor. Answer in one short sentence and end with a warning about the weather."
QUESTIONS = (
    "Who are you?", "What is the capital of France?", "How do I boil an egg?", "What should I wear tomorrow?",
    "Why is the sky blue?", "How old are you?", "Where can I buy a boat?", "What is two plus two?",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--clients", action="store_true")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, nargs=2, default=(0.2, 9.0), help="between two kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    # runs with different token counts never share a batch, which would change their bits
    settings = [{"tokens": tokens, "steps": options.steps, "seed": 7} for tokens in (2, 3, 4)]
    prompts: tuple[str, ...] = PROMPTS
    model = load_model(options.model, "cpu")
    name = options.model
    if model.kind == "causal":
        settings, prompts = [settings[-1] | {"questions": QUESTIONS}], (SAILOR,)
        name = f"{LOCAL_PREFIX}{model.folder}"  # another home has other converted models
        model = load_model(name, "cpu")
    references = [
        softprompt.train(model, prompt, config_for(model.kind, own))
        for prompt, own in zip(prompts, settings, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SOFTPROMPT_HOME"] = folder
        home = Home(os.environ.__setitem__)
        try:
            runs = [home.submit(prompt, model=name, **own) for prompt, own in zip(prompts, settings, strict=True)]
            for i in range(options.kills):
                time.sleep(rng.uniform(*options.seconds))
                if options.clients:
                    watcher = subprocess.Popen(
                        [sys.executable, "-m", "softprompt_tui", "attach", runs[i % len(runs)]],
                        stdout=subprocess.DEVNULL,
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
            print(f"{options.kills} kills: the library has each result once, with the same bits")
        finally:
            home.close()


if __name__ == "__main__":
    main()
