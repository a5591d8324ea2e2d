"""The texts that `mini` is trained and graded on: token ids with the teacher's running mean, in batches, and encoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import TextTransformer

TOKENS = 6144  # positions a step


class Texts:
    """All shards of one split: token ids and, per token, the teacher's running mean."""

    def __init__(self, work: Path, split: str) -> None:
        shards = [load_file(path) for path in sorted(work.glob(f"{split}-*.safetensors"))]
        if not shards:
            raise SystemExit(f"{work} has no {split}-*.safetensors: run core/mini/embed.py first")
        self.ids = torch.cat([shard["ids"] for shard in shards])
        self.running = torch.cat([shard["running"] for shard in shards])
        lengths = torch.cat([shard["starts"].diff() for shard in shards])
        self.starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batch(self, rows: Tensor, tokenizer: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
        """ids (b, n), where the end token stands (b,), and targets (b, n - 1, 384) for the positions after the start token."""
        lengths = self.starts[rows + 1] - self.starts[rows]
        n = int(lengths.max())
        at = torch.arange(n)
        flat = (self.starts[rows].unsqueeze(1) + at).clamp(max=len(self.ids) - 1)
        inside = at < lengths.unsqueeze(1)
        ids = torch.full((len(rows), n + 2), tokenizer.end)
        ids[:, 0] = tokenizer.start
        ids[:, 1:-1] = torch.where(inside, self.ids[flat].long(), tokenizer.end)
        targets = torch.zeros(len(rows), n + 1, self.running.shape[1])
        targets[:, :-1] = self.running[flat].float() * inside.unsqueeze(-1)
        last = targets[torch.arange(len(rows)), lengths - 1]
        targets[torch.arange(len(rows)), lengths] = last  # the end token's target: the teacher's embedding
        return ids, lengths + 1, targets

    def plan(self, epoch: int, seed: int) -> list[Tensor]:
        """Rows of every step of an epoch: texts of like length together, TOKENS positions in all."""
        rng = torch.Generator().manual_seed(seed * 1000 + epoch)
        lengths = self.starts.diff()
        order = torch.argsort(
            lengths + torch.rand(len(self), generator=rng) * 2
        )  # like lengths, in another order each time
        batches, begin = [], 0
        padded = (lengths[order] + 2).tolist()
        for end in range(1, len(self) + 1):
            if end == len(self) or (end + 1 - begin) * padded[end] > TOKENS:
                batches.append(order[begin:end])
                begin = end
        return [batches[i] for i in torch.randperm(len(batches), generator=rng)]


def batches(texts: Texts, tokenizer: Tokenizer, step: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches from `step` on, epoch after epoch; where a run stopped, it goes on with the same ones."""
    epoch, plan = 0, texts.plan(0, seed)
    while step >= len(plan):
        step, epoch = step - len(plan), epoch + 1
        plan = texts.plan(epoch, seed)
    while True:
        for rows in plan[step:]:
            yield texts.batch(rows, tokenizer)
        step, epoch = 0, epoch + 1
        plan = texts.plan(epoch, seed)


def encode_rows(tower: TextTransformer, texts: Texts, rows: Tensor, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """(the student's, the teacher's) embeddings of these rows, each (rows, 384)."""
    pooled, wanted = [], []
    for part in rows.split(100):
        ids, ends, targets = texts.batch(part, tokenizer)
        x = F.embedding(ids, tower.table) + tower.positions[: ids.shape[1]]
        states = tower.states(x)[torch.arange(len(ids)), ends]
        pooled.append(F.normalize(tower.project(tower.final_norm(states)), dim=-1))
        wanted.append(targets[torch.arange(len(ids)), ends - 1])
    return torch.cat(pooled), torch.cat(wanted)
