"""Pooled and hidden-state similarity, and composition fidelity, for each objective that trains towards them.

    python tests/benchmarks/hidden.py [--tokens 3 8] [--objectives cosine hidden mixed] [--family sd1] [--shares .3 .5 .7] [--steps 300] [--model mini]

A line for each number of tokens and objective: means over the prompts below. "another prompt" is what each of them has in common with the
next in its own words, without any training: the floor that hidden-state similarities stand on.
"""

from __future__ import annotations

import argparse
from statistics import mean

import softprompt
from softprompt.evaluation.hidden_states import hidden_similarities
from softprompt.objectives.hard_prompt import tokenize_prompt

PROMPTS = (
    "a red fox asleep in deep snow under tall pine trees at dusk",
    "a small wooden boat drifting on a foggy river beside an old stone mill",
    "image of serene landscape at sunrise with trees mountains and lake",
    "an elderly clockmaker bent over his bench, surrounded by brass gears and warm lamplight",
    "crowded night market in the rain, paper lanterns, steam rising from noodle stalls",
    "a lighthouse on a cliff above a stormy grey sea, gulls circling",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[3, 8])
    parser.add_argument("--objectives", nargs="+", default=["cosine", "hidden", "mixed"])
    parser.add_argument("--family", default="sd1")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.3])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    encoder = softprompt.load_encoder(args.model)
    of = {"family": args.family}
    each = {
        "cosine": [{"objective": "cosine"}],
        "hidden": [{"objective": "hidden"} | of],
        "mixed": [{"objective": "mixed", "hidden_share": share} | of for share in args.shares],
    }
    objectives = [settings for one in args.objectives for settings in each[one]]
    others = [
        hidden_similarities(encoder, tokenize_prompt(encoder, one), encoder.embed(encoder.tokenize(other)))
        for one, other in zip(PROMPTS, PROMPTS[1:] + PROMPTS[:1], strict=True)
    ]
    families = list(others[0])
    print(
        f"{'k':>2} {'objective':<16} {'pooled':>7} {'composed':>8} {'worst':>7}",
        *(f"{one:>7}" for one in families),
        " seconds",
    )
    print(
        f"{'':>2} {'another prompt':<16} {'':>24}",
        *(f"{mean(other[one] for other in others):7.4f}" for one in families),
    )
    for tokens in args.tokens:
        for settings in objectives:
            made = [softprompt.train(encoder, text, tokens=tokens, steps=args.steps, **settings) for text in PROMPTS]
            composed = [one.composition for one in made if one.composition is not None]
            label = f"{settings['objective']} {settings.get('hidden_share', '')}"
            figures = [
                mean(one.similarity for one in made),
                mean(one.mean for one in composed),
                min(one.worst for one in composed),
            ]
            figures += [mean(one.hidden[family] for one in made) for family in families]
            seconds = mean(one.seconds for one in made)
            print(f"{tokens:>2} {label:<16}", *(f"{value:7.4f}" for value in figures), f"{seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
