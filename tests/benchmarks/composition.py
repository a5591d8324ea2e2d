"""Soft prompts as words: one in the grading contexts, two in one sentence, and mixes, as a user gets them with every setting at its default.

    python tests/benchmarks/composition.py [PROMPTS.txt] [--tokens 3] [--pairs 30] [--trained 4] [--model mini]

Prompts are the sixteen below, or the first sixteen of a file that have 8 to 30 tokens. Fails where one soft prompt's mean error is more than
a quarter of the floor's, or the mean fidelity of two is below .97. `--trained` is of how many pairs the mixes are also trained.
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
LEAST, MOST = 8, 30  # tokens of a prompt from a file: two and the words between them must fit written out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path, nargs="?")
    parser.add_argument("--tokens", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=30)
    parser.add_argument("--trained", type=int, default=4)
    parser.add_argument("--model", default="mini")
    args = parser.parse_args()
    encoder = softprompt.load_encoder(args.model)
    prompts = [softprompt.train(encoder, text, tokens=args.tokens) for text in _texts(encoder, args.prompts)]
    entries = {f"p {i}": Entry(f"{i:016x}", 1, prompt) for i, prompt in enumerate(prompts)}
    chance = random.Random(0)
    pairs = [chance.sample(sorted(entries), 2) for _ in range(args.pairs)]
    print(f"{len(prompts)} prompts, {args.tokens} tokens on {encoder.name}")
    good = _one(entries["p 0"])
    good &= _two(encoder, entries, pairs)
    _near(encoder, entries, pairs)
    if args.trained:
        _trained(encoder, entries, pairs[: args.trained], args.tokens)
    sys.exit(not good)


def _texts(encoder: TextEncoder, path: Path | None) -> list[str]:
    if path is None:
        return list(PROMPTS)
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if LEAST <= len(encoder.tokenizer.encode(line)) <= MOST][: len(PROMPTS)]


def _one(entry: Entry) -> bool:
    """The first prompt in the grading contexts."""
    made = entry.prompt.composition
    assert made is not None
    ratio = (1 - made.mean) / (1 - made.floor)
    print(
        f"one      mean {made.mean:.4f}  worst {made.worst:.4f}  floor {made.floor:.4f}  error to floor's {ratio:.3f}"
    )
    return ratio <= 0.25


def _two(encoder: TextEncoder, entries: dict[str, Entry], pairs: list[list[str]]) -> bool:
    texts = [TEMPLATES[i % len(TEMPLATES)].format(*pair) for i, pair in enumerate(pairs)]
    found = _figures(encoder, entries, texts)
    fidelities = [one.fidelity for one in found if one.fidelity is not None]
    floors = [one.floor for one in found if one.floor is not None]
    print(
        f"two      mean {mean(fidelities):.4f}  worst {min(fidelities):.4f}  floor {mean(floors):.4f}  in {len(fidelities)} sentences"
    )
    for i, template in enumerate(TEMPLATES):
        print(f"         {mean(fidelities[i :: len(TEMPLATES)]):.4f}  {template}")
    return mean(fidelities) >= 0.97


def _near(encoder: TextEncoder, entries: dict[str, Entry], pairs: list[list[str]]) -> None:
    """Unsaved mixes over a grid of shares: the fidelity, and how often and how far the similarity to the first steps back."""
    fidelities, back = [], []
    for first, second in pairs:
        texts = [f"[{first}*{share} + {second}*{1 - share:.1f}]" for share in GRID[1:-1]]
        texts = [f"[{second}]", *texts, f"[{first}]"]
        made = compose(encoder, texts, entries.__getitem__)
        ours = encode_compositions(encoder, made)
        fidelities += [one.fidelity or 0.0 for one in score_compositions(encoder, made, ours)[1:-1]]
        back.append(_back((ours @ encoder.encode([entries[first].prompt.hard_prompt])[0]).tolist()))
    print(f"near     mean {mean(fidelities):.4f}  worst {min(fidelities):.4f}  {_told(back)}")


def _trained(encoder: TextEncoder, entries: dict[str, Entry], pairs: list[list[str]], tokens: int) -> None:
    """The same, trained as a saved mix is."""
    fidelities, composed, back = [], [], []
    for first, second in pairs:
        a, b = entries[first].prompt, entries[second].prompt
        row = [encoder.encode([b.hard_prompt])[0]]
        for share in GRID[1:-1]:
            meanings = (WeightedText(a.hard_prompt, share), WeightedText(b.hard_prompt, 1 - share))
            mix = softprompt.train(encoder, "a mix", meanings=meanings, tokens=tokens)
            assert mix.similarity is not None
            assert mix.composition is not None
            fidelities.append(mix.similarity)
            composed.append(mix.composition.mean)
            made = compose(encoder, ["[mix]"], lambda _, mix=mix: Entry("0" * 16, 1, mix))
            row.append(encode_compositions(encoder, made)[0])
        target = encoder.encode([a.hard_prompt])[0]
        back.append(_back([float(one @ target) for one in [*row, target]]))
    print(
        f"trained  mean {mean(fidelities):.4f}  worst {min(fidelities):.4f}  composed {mean(composed):.4f}  {_told(back)}"
    )


def _figures(encoder: TextEncoder, entries: dict[str, Entry], texts: list[str]) -> list[CompositionScore]:
    made = compose(encoder, texts, entries.__getitem__)
    return score_compositions(encoder, made, encode_compositions(encoder, made))


def _back(similarities: list[float]) -> float:
    """The largest step back of what should only grow."""
    return max(0.0, *(a - b for a, b in pairwise(similarities)))


def _told(back: list[float]) -> str:
    return f"monotone in {sum(step == 0 for step in back)} of {len(back)} pairs, largest step back {max(back):.4f}"


if __name__ == "__main__":
    main()
