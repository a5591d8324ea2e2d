"""Measure similarity and composition fidelity over many prompts, with default settings.

    python tests/benchmarks/quality.py PROMPTS.txt [--tokens 3] [--count 50] [--least 8] [--model mini]

Trains the first COUNT lines that have at least 8 tokens (`--least`), prints a line for each, then the means. "error /
floor's error" is the mean composition error, 1 - fidelity, divided by the error of omitting the added words.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, median

import softprompt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--tokens", type=int, default=3)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--least", type=int, default=8, help="minimum number of tokens of a prompt")
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    encoder = softprompt.load_encoder(args.model)
    lines = [line.strip() for line in args.prompts.read_text(encoding="utf-8").splitlines()]
    selected = [
        line for line in lines if args.least <= len(encoder.tokenizer.encode(line)) <= encoder.max_prompt_tokens
    ][: args.count]
    results = []
    for line in selected:
        prompt = softprompt.train(encoder, line, tokens=args.tokens)
        assert prompt.composition is not None
        results.append((prompt, prompt.composition))
        composed = f"{prompt.composition.mean:.4f} {prompt.composition.worst:.4f} floor {prompt.composition.floor:.4f}"
        print(f"{prompt.similarity:.4f}  {composed}  {prompt.seconds:.1f} s  {line[:60]}", flush=True)
    similarities = [prompt.similarity for prompt, _ in results]
    errors, floors = (
        [1 - value for value in values]
        for values in ([fidelity.mean for _, fidelity in results], [fidelity.floor for _, fidelity in results])
    )
    print(f"\n{len(results)} prompts, {args.tokens} tokens on {encoder.name}")
    print(f"similarity   mean {mean(similarities):.4f}  min {min(similarities):.4f}")
    print(
        f"composition  mean {mean(fidelity.mean for _, fidelity in results):.4f}  "
        f"worst of all {min(fidelity.worst for _, fidelity in results):.4f}"
    )
    print(f"             mean of each prompt's worst {mean(fidelity.worst for _, fidelity in results):.4f}")
    print(f"error / floor's error {mean(errors) / mean(floors):.3f}")
    print(f"readout similarity mean {mean(prompt.readout_similarity for prompt, _ in results):.3f}")
    print(f"training seconds median {median(prompt.seconds for prompt, _ in results):.1f}")


if __name__ == "__main__":
    main()
