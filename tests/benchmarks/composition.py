"""Measure soft prompts as words: one in the grading contexts, two in one sentence, and mixes. Uses default settings.

    python tests/benchmarks/composition.py [PROMPTS.txt] [--tokens 3] [--pairs 30] [--trained 4] [--model mini]

The prompts are the sixteen below, or the first sixteen lines of a file that have 8 to 30 tokens. The benchmark fails if
the mean error of one soft prompt is more than a quarter of the floor's error, or if the mean fidelity of two soft
prompts is below .97. `--trained` is the number of pairs whose mixes are also trained.
"""

from __future__ import annotations

import argparse
import random
import sys
from itertools import pairwise
from pathlib import Path
from statistics import mean

import softprompt
from softprompt.composition.composer import CompositionScore, compose, encode_compositions, score_compositions
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.library.entry import Entry
from softprompt.prompts.lineage import WeightedText

EXAMPLE = "image of serene landscape at sunrise with trees mountains and lake"
PROMPTS = (
    EXAMPLE,
    "a busy city street at night with neon signs and rain",
    "a red fox asleep in deep snow under tall pine trees",
    "an old steam train crossing a high stone bridge",
    "a bowl of fresh strawberries on a wooden kitchen table",
    "portrait of a smiling fisherman with a grey beard",
    "a small wooden boat drifting on a foggy river",
    "astronaut riding a white horse in the desert",
    "a ballet dancer resting on a chair beside a tall mirror",
    "two children building a sand castle on a quiet beach",
    "a gothic cathedral with stained glass and burning candles",
    "close up of a green tree frog on a wet leaf",
    "a vintage motorcycle parked outside a roadside diner",
    "a chef slicing vegetables in a crowded restaurant kitchen",
    "an owl perched on a broken fence in the moonlight",
    "a hot air balloon floating over golden wheat fields",
)
TEMPLATES = (
    "[{}] next to [{}]",
    "[{}] in the style of [{}]",
    "[{}] in front of [{}]",
    "[{}] beside [{}], painted in oil",
    "a dream of [{}] and [{}]",
)
GRID = [n / 10 for n in range(11)]
MIN_TOKENS, MAX_TOKENS = 8, 30  # for prompts of a file: a sentence with two of them written out must fit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--trained", type=int, default=4)
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    encoder = softprompt.load_encoder(args.model)
    prompts = [softprompt.train(encoder, text, tokens=args.tokens) for text in _load_texts(encoder, args.prompts)]
    entries = {f"p {i}": Entry(f"{i:016x}", 1, prompt) for i, prompt in enumerate(prompts)}
    rng = random.Random(0)
    pairs = [rng.sample(sorted(entries), 2) for _ in range(args.pairs)]
    print(f"{len(prompts)} prompts, {args.tokens} tokens on {encoder.name}")
    passed = _measure_one(entries["p 0"])
    passed &= _measure_two(encoder, entries, pairs)
    _measure_approximate_mixes(encoder, entries, pairs)
    if args.trained:
        _measure_trained_mixes(encoder, entries, pairs[: args.trained], args.tokens)
    sys.exit(not passed)


def _load_texts(encoder: TextEncoder, path: Path | None) -> list[str]:
    if path is None:
        return list(PROMPTS)
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if MIN_TOKENS <= len(encoder.tokenizer.encode(line)) <= MAX_TOKENS][: len(PROMPTS)]


def _measure_one(entry: Entry) -> bool:
    """Print how well a soft prompt composes with the grading contexts. Return whether that is good enough."""
    fidelity = entry.prompt.composition
    assert fidelity is not None
    ratio = (1 - fidelity.mean) / (1 - fidelity.floor)
    print(
        f"one      mean {fidelity.mean:.4f}  worst {fidelity.worst:.4f}  floor {fidelity.floor:.4f}  "
        f"error / floor's error {ratio:.3f}"
    )
    return ratio <= 0.25


def _measure_two(encoder: TextEncoder, entries: dict[str, Entry], pairs: list[list[str]]) -> bool:
    """Print how well two soft prompts compose in one sentence. Return whether that is good enough."""
    texts = [TEMPLATES[i % len(TEMPLATES)].format(*pair) for i, pair in enumerate(pairs)]
    scores = _score(encoder, entries, texts)
    fidelities = [score.fidelity for score in scores if score.fidelity is not None]
    floors = [score.floor for score in scores if score.floor is not None]
    print(
        f"two      mean {mean(fidelities):.4f}  worst {min(fidelities):.4f}  floor {mean(floors):.4f}  "
        f"in {len(fidelities)} sentences"
    )
    for i, template in enumerate(TEMPLATES):
        print(f"         {mean(fidelities[i :: len(TEMPLATES)]):.4f}  {template}")
    return mean(fidelities) >= 0.97


def _measure_approximate_mixes(encoder: TextEncoder, entries: dict[str, Entry], pairs: list[list[str]]) -> None:
    """Print the fidelity of approximate mixes over a grid of weights.

    Also prints how far the similarity to the first prompt drops although its weight grows.
    """
    fidelities, steps_back = [], []
    for first, second in pairs:
        texts = [f"[{first}*{weight} + {second}*{1 - weight:.1f}]" for weight in GRID[1:-1]]
        texts = [f"[{second}]", *texts, f"[{first}]"]
        mixes = compose(encoder, texts, entries.__getitem__)
        embeddings = encode_compositions(encoder, mixes)
        fidelities += [score.fidelity or 0.0 for score in score_compositions(encoder, mixes, embeddings)[1:-1]]
        steps_back.append(
            _largest_step_back((embeddings @ encoder.encode([entries[first].prompt.hard_prompt])[0]).tolist())
        )
    print(f"approx   mean {mean(fidelities):.4f}  worst {min(fidelities):.4f}  {_describe_steps_back(steps_back)}")


def _measure_trained_mixes(
    encoder: TextEncoder, entries: dict[str, Entry], pairs: list[list[str]], tokens: int
) -> None:
    """Print the same for trained mixes."""
    fidelities, composed, steps_back = [], [], []
    for first, second in pairs:
        a, b = entries[first].prompt, entries[second].prompt
        embeddings = [encoder.encode([b.hard_prompt])[0]]
        for weight in GRID[1:-1]:
            meanings = (WeightedText(a.hard_prompt, weight), WeightedText(b.hard_prompt, 1 - weight))
            mix = softprompt.train(encoder, "a mix", meanings=meanings, tokens=tokens)
            assert mix.similarity is not None
            assert mix.composition is not None
            fidelities.append(mix.similarity)
            composed.append(mix.composition.mean)
            composition = compose(encoder, ["[mix]"], lambda _, mix=mix: Entry("0" * 16, 1, mix))
            embeddings.append(encode_compositions(encoder, composition)[0])
        target = encoder.encode([a.hard_prompt])[0]
        steps_back.append(_largest_step_back([float(embedding @ target) for embedding in [*embeddings, target]]))
    print(
        f"trained  mean {mean(fidelities):.4f}  worst {min(fidelities):.4f}  composed {mean(composed):.4f}  "
        f"{_describe_steps_back(steps_back)}"
    )


def _score(encoder: TextEncoder, entries: dict[str, Entry], texts: list[str]) -> list[CompositionScore]:
    compositions = compose(encoder, texts, entries.__getitem__)
    return score_compositions(encoder, compositions, encode_compositions(encoder, compositions))


def _largest_step_back(similarities: list[float]) -> float:
    """Return the largest decrease between neighbours, or 0 if the similarities only grow."""
    return max(0.0, *(a - b for a, b in pairwise(similarities)))


def _describe_steps_back(steps: list[float]) -> str:
    return f"monotone in {sum(step == 0 for step in steps)} of {len(steps)} pairs, largest step back {max(steps):.4f}"


if __name__ == "__main__":
    main()
