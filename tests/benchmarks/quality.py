"""Similarity and composition fidelity over many prompts, as a user gets them with every setting at its default.

    python tests/benchmarks/quality.py PROMPTS.txt [--tokens 3] [--count 50] [--model mini]

Takes the first COUNT lines of at least 8 tokens (or of the number given) and prints a line each, then the means. "error to floor" is
the mean composition error, 1 - fidelity, over that of leaving the added words away.
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
    parser.add_argument("--least", type=int, default=8, help="tokens a prompt must have")
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    encoder = softprompt.load_encoder(args.model)
    lines = [line.strip() for line in args.prompts.read_text(encoding="utf-8").splitlines()]
    chosen = [line for line in lines if args.least <= len(encoder.tokenizer.encode(line)) <= encoder.max_prompt_tokens][
        : args.count
    ]
    made = []
    for line in chosen:
        prompt = softprompt.train(encoder, line, tokens=args.tokens)
        assert prompt.composition is not None
        made.append((prompt, prompt.composition))
        composed = f"{prompt.composition.mean:.4f} {prompt.composition.worst:.4f} floor {prompt.composition.floor:.4f}"
        print(f"{prompt.similarity:.4f}  {composed}  {prompt.seconds:.1f} s  {line[:60]}", flush=True)
    similarities = [prompt.similarity for prompt, _ in made]
    errors, floors = (
        [1 - value for value in values] for values in ([c.mean for _, c in made], [c.floor for _, c in made])
    )
    print(f"\n{len(made)} prompts, {args.tokens} tokens on {encoder.name}")
    print(f"similarity   mean {mean(similarities):.4f}  least {min(similarities):.4f}")
    print(f"composition  mean {mean(c.mean for _, c in made):.4f}  worst of all {min(c.worst for _, c in made):.4f}")
    print(f"             mean of each prompt's worst {mean(c.worst for _, c in made):.4f}")
    print(f"error to floor {mean(errors) / mean(floors):.3f}")
    print(f"readout similarity mean {mean(p.readout_similarity for p, _ in made):.3f}")
    print(f"training seconds median {median(p.seconds for p, _ in made):.1f}")


if __name__ == "__main__":
    main()
