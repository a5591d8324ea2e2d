"""Measure tuning on examples beside few-shot prompts and no prompt.

    python tests/benchmarks/tune.py [--model MODEL] [--tokens 4 16] [--seeds 0 1] [--steps 120] [--precision bfloat16]

MODEL is a folder, a .gguf file or hf:OWNER/NAME. Trains on the first 64 lines of tune_examples.jsonl and grades on the
other 32, of which training sees none. Prints a line for each number of tokens and seed. 120 steps of a model of 135
million parameters take two minutes on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import softprompt
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.prompts.examples import read_examples

FILE = Path(__file__).parent / "tune_examples.jsonl"
TRAINING = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hf:HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--tokens", type=int, nargs="+", default=[16])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--precision", default="bfloat16")
    args = parser.parse_args()
    model = load_causal_lm(args.model, precision=args.precision)
    pairs = [(example.input, example.output) for example in read_examples(FILE).examples]
    print(f"{'k':>3} {'seed':>4} {'prompt':<12} {'loss':>7} {'right':>6}  seconds")
    for tokens in args.tokens:
        for seed in args.seeds:
            prompt = softprompt.tune(
                model, pairs[:TRAINING], held_out=pairs[TRAINING:], tokens=tokens, seed=seed, steps=args.steps
            )
            fidelity = prompt.examples
            assert fidelity is not None
            for name, score in {"soft prompt": fidelity.score, **fidelity.floors}.items():
                seconds = f"{prompt.seconds:8.0f}" if name == "soft prompt" else ""
                print(f"{tokens:>3} {seed:>4} {name:<12} {score.loss:7.3f} {score.accuracy:6.1%} {seconds}", flush=True)
            print(f"few-shot prompt: {fidelity.shots} of {fidelity.training.count} examples")


if __name__ == "__main__":
    main()
