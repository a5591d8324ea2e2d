"""Measure pooled similarity, hidden-state similarity and composition fidelity for each objective.

    python tests/benchmarks/hidden.py [--tokens 3 8] [--objectives cosine hidden mixed] [--family sd1]
        [--shares .3 .5 .7] [--steps 300] [--model mini]

Prints a line for each number of tokens and objective, with means over the prompts below. The line "another prompt"
compares each prompt with the next one, without any training: this is the floor of the hidden-state similarities.
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
    family = {"family": args.family}
    settings_by_objective = {
        "cosine": [{"objective": "cosine"}],
        "hidden": [{"objective": "hidden"} | family],
        "mixed": [{"objective": "mixed", "hidden_share": share} | family for share in args.shares],
    }
    objectives = [settings for name in args.objectives for settings in settings_by_objective[name]]
    floors = [
        hidden_similarities(encoder, tokenize_prompt(encoder, prompt), encoder.embed(encoder.tokenize(other)))
        for prompt, other in zip(PROMPTS, PROMPTS[1:] + PROMPTS[:1], strict=True)
    ]
    families = list(floors[0])
    print(
        f"{'k':>2} {'objective':<16} {'pooled':>7} {'composed':>8} {'worst':>7}",
        *(f"{name:>7}" for name in families),
        " seconds",
    )
    print(
        f"{'':>2} {'another prompt':<16} {'':>24}",
        *(f"{mean(floor[name] for floor in floors):7.4f}" for name in families),
    )
    for tokens in args.tokens:
        for settings in objectives:
            prompts = [softprompt.train(encoder, text, tokens=tokens, steps=args.steps, **settings) for text in PROMPTS]
            fidelities = [prompt.composition for prompt in prompts if prompt.composition is not None]
            label = f"{settings['objective']} {settings.get('hidden_share', '')}"
            figures = [
                mean(prompt.similarity for prompt in prompts),
                mean(fidelity.mean for fidelity in fidelities),
                min(fidelity.worst for fidelity in fidelities),
            ]
            figures += [mean(prompt.hidden[name] for prompt in prompts) for name in families]
            seconds = mean(prompt.seconds for prompt in prompts)
            print(f"{tokens:>2} {label:<16}", *(f"{value:7.4f}" for value in figures), f"{seconds:8.1f}", flush=True)


if __name__ == "__main__":
    main()
