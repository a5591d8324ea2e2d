"""Step 1 of `mini`: write the corpus.

    python core/mini/corpus.py --phrases FOLDER [--wordnet FOLDER] [--work FOLDER]

Writes train.jsonl and test.jsonl with one {"kind", "text"} per line. There are five kinds: WordNet's glosses, examples
and lemmas, captions, and image prompts. Each synset and each phrase (a flavor, an artist, a movement, a pair of subject
and action) is in one of the two files only, so the test never repeats the training texts.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from captions import caption, scene

KINDS = {"gloss": 62_000, "example": 46_000, "lemma": 42_000, "caption": 105_000, "prompt": 95_000}
TEST_TEXTS = 3_000
# WordNet's lexicographer files with nouns that a picture can show
VISIBLE = {"05": "animal", "06": "artifact", "13": "food", "17": "object", "18": "person", "20": "plant"}
MAX_TEXT_LENGTH = 400  # characters


def is_held_out(key: str, share: int = 50) -> bool:
    """Return whether a synset or phrase belongs to the test: one in `share`, decided by a hash of its text."""
    return int.from_bytes(hashlib.sha256(key.casefold().encode()).digest()[:8]) % share == 0


def synsets(wordnet: Path) -> Iterator[tuple[str, str, list[str], str]]:
    """Yield (key, lexicographer file, lemmas, gloss) of every synset. Format: wndb(5WN)."""
    for part in ("noun", "verb", "adj", "adv"):
        with (wordnet / f"data.{part}").open(encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("  "):
                    continue
                data, _, gloss = line.partition(" | ")
                fields = data.split()
                lemmas = [fields[4 + 2 * i].split("(")[0].replace("_", " ") for i in range(int(fields[3], 16))]
                yield f"{part}:{fields[0]}", fields[1], lemmas, gloss.strip()


def from_wordnet(wordnet: Path) -> tuple[list[tuple[str, str, bool]], dict[str, list[str]]]:
    """Return the texts as (kind, text, is in the test), and the nouns of the training synsets by kind."""
    texts: list[tuple[str, str, bool]] = []
    nouns: dict[str, list[str]] = {kind: [] for kind in VISIBLE.values()}
    for key, lexicographer, lemmas, gloss in synsets(wordnet):
        test = is_held_out(key)
        definition, *examples = [part.strip(' ";') for part in gloss.split('; "')]
        texts.append(("gloss", f"{lemmas[0]}: {definition}" if is_held_out(key + "#named", 3) else definition, test))
        texts += [("example", example, test) for example in examples if example]
        texts.append(("lemma", ", ".join(lemmas[:3]) if is_held_out(key + "#all", 2) else lemmas[0], test))
        if key.startswith("noun") and lexicographer in VISIBLE and not test:
            # proper names and Latin species names add little to a caption
            nouns[VISIBLE[lexicographer]] += [lemma for lemma in lemmas[:2] if lemma.islower() and lemma.count(" ") < 2]
    return texts, nouns


def image_prompt(
    rng: random.Random, phrases: dict[str, list[str]], nouns: dict[str, list[str]]
) -> tuple[str, list[str]]:
    """Generate a prompt as people write them for diffusion models: subject, flavors, artists, movement."""
    subject, keys = scene(rng, nouns)
    if rng.random() < 0.12:  # some prompts consist of flavors only
        subject = rng.choice(phrases["flavors"])
        keys = [subject]
    parts = [subject]
    if rng.random() < 0.2:
        medium = rng.choice(phrases["mediums"])
        parts[0] = f"{medium} of {subject}"
    flavors = rng.sample(phrases["flavors"], rng.choice([0, 1, 1, 2, 2, 3, 4, 5, 7, 10]))
    parts += flavors
    keys = [*keys, *flavors]
    if rng.random() < 0.3:
        artists = rng.sample(phrases["artists"], rng.choice([1, 1, 2, 3]))
        keys += artists
        parts.append(
            rng.choice(["by ", "art by ", "in the style of ", "inspired by "])
            + rng.choice([" and ", ", "]).join(artists)
        )
    if rng.random() < 0.2:
        movement = rng.choice(phrases["movements"])
        parts.append(movement)
        keys.append(movement)
    if rng.random() < 0.3:
        rest = parts[1:]
        rng.shuffle(rest)
        parts[1:] = rest
    return rng.choice([", ", ", ", ", ", " "]).join(parts), keys


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"), help="Debian's wordnet-base")
    parser.add_argument("--phrases", type=Path, required=True, help="the folder clip_interrogator/data of that package")
    parser.add_argument("--work", type=Path, default=Path("mini-work"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)

    texts, nouns = from_wordnet(args.wordnet)
    phrases = {
        name: [
            line.strip()
            for line in (args.phrases / f"{name}.txt").read_text(encoding="utf-8").splitlines()
            if line.strip()
        ]
        for name in ("flavors", "artists", "mediums", "movements")
    }
    train: dict[str, list[str]] = {kind: [] for kind in KINDS}
    test: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind, text, held in texts:
        (test if held else train)[kind].append(text)
    makers = {"caption": lambda: caption(rng, nouns), "prompt": lambda: image_prompt(rng, phrases, nouns)}
    for kind, make in makers.items():
        while len(train[kind]) < KINDS[kind]:
            text, keys = make()
            (test if any(is_held_out(key) for key in keys) else train)[kind].append(text)

    total = sum(KINDS.values())
    used: set[str] = set()  # texts of the training, which the test must not repeat: synsets share lemmas
    for name, pool, size in (("train", train, total), ("test", test, TEST_TEXTS)):
        rows = []
        for kind in KINDS:
            candidates = list(
                dict.fromkeys(
                    text for text in pool[kind] if 0 < len(text) <= MAX_TEXT_LENGTH and text.casefold() not in used
                )
            )
            rng.shuffle(candidates)
            rows += [(kind, text) for text in candidates[: round(size * KINDS[kind] / total)]]
        rng.shuffle(rows)
        unique: dict[str, tuple[str, str]] = {}
        for kind, text in rows:
            unique.setdefault(text.casefold(), (kind, text))
        rows = list(unique.values())
        used |= unique.keys()
        with (args.work / f"{name}.jsonl").open("w", encoding="utf-8") as out:
            out.writelines(json.dumps({"kind": kind, "text": text}, ensure_ascii=False) + "\n" for kind, text in rows)
        print(name, dict(Counter(kind for kind, _ in rows)))


if __name__ == "__main__":
    main()
