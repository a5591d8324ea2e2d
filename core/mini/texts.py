"""Texts for training and grading `mini`: token ids with the teacher's running means, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import TextTransformer

STEP_POSITIONS = 6144  # positions per step


class Texts:
    """All shards of one split: token ids and the teacher's running mean at each token."""

    def __init__(self, work: Path, split: str) -> None:
        shards = [load_file(path) for path in sorted(work.glob(f"{split}-*.safetensors"))]
        if not shards:
            raise SystemExit(f"{work} has no {split}-*.safetensors. Run core/mini/embed.py first")
        self.ids = torch.cat([shard["ids"] for shard in shards])
        self.running = torch.cat([shard["running"] for shard in shards])
        lengths = torch.cat([shard["starts"].diff() for shard in shards])
        self.starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])

    def __len__(self) -> int:
        return len(self.starts) - 1

    def batch(self, rows: Tensor, tokenizer: Tokenizer) -> tuple[Tensor, Tensor, Tensor]:
        """Return a batch of rows.

        Returns:
            ids (b, n), positions of the end token (b,), and targets (b, n - 1, 384) for the positions after the start.
        """
        lengths = self.starts[rows + 1] - self.starts[rows]
        n = int(lengths.max())
        offsets = torch.arange(n)
        flat = (self.starts[rows].unsqueeze(1) + offsets).clamp(max=len(self.ids) - 1)
        inside = offsets < lengths.unsqueeze(1)
        ids = torch.full((len(rows), n + 2), tokenizer.end)
        ids[:, 0] = tokenizer.start
        ids[:, 1:-1] = torch.where(inside, self.ids[flat].long(), tokenizer.end)
        targets = torch.zeros(len(rows), n + 1, self.running.shape[1])
        targets[:, :-1] = self.running[flat].float() * inside.unsqueeze(-1)
        last = targets[torch.arange(len(rows)), lengths - 1]
        targets[torch.arange(len(rows)), lengths] = last  # the end token's target: the teacher's embedding
        return ids, lengths + 1, targets

    def plan(self, epoch: int, seed: int) -> list[Tensor]:
        """Return the rows of each step of an epoch: texts of similar length, STEP_POSITIONS positions per step."""
        rng = torch.Generator().manual_seed(seed * 1000 + epoch)
        lengths = self.starts.diff()
        order = torch.argsort(
            lengths + torch.rand(len(self), generator=rng) * 2
        )  # similar lengths together, in a new order each epoch
        batches, begin = [], 0
        padded = (lengths[order] + 2).tolist()
        for end in range(1, len(self) + 1):
            if end == len(self) or (end + 1 - begin) * padded[end] > STEP_POSITIONS:
                batches.append(order[begin:end])
                begin = end
        return [batches[i] for i in torch.randperm(len(batches), generator=rng)]


def batches(texts: Texts, tokenizer: Tokenizer, step: int, seed: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield batches from `step` on, epoch after epoch. A resumed run gets the same batches."""
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
    """Return the student's and the teacher's embeddings of these rows, (rows, 384) each."""
    student, teacher = [], []
    for part in rows.split(100):
        ids, ends, targets = texts.batch(part, tokenizer)
        x = F.embedding(ids, tower.table) + tower.positions[: ids.shape[1]]
        states = tower.states(x)[torch.arange(len(ids)), ends]
        student.append(F.normalize(tower.project(tower.final_norm(states)), dim=-1))
        teacher.append(targets[torch.arange(len(ids)), ends - 1])
    return torch.cat(student), torch.cat(teacher)
