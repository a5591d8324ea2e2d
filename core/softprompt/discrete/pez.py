"""PEZ (Wen et al. 2023, "Hard prompts made easy"): gradient descent on vectors that are read as their nearest tokens.

Each step replaces every vector by its nearest token, takes the gradient there, and applies it to the vector itself. *Stock* is as published:
the table is normalised again every step, the text is padded to the whole context, one forward scores and a second one gives the
gradient. *Fast* computes the same from a table normalised once, only the positions that matter, and one forward.
Shapes: b prompts or starts, k tokens, w width, e embed_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.text_encoder import TextEncoder

RATE, DECAY = 0.1, 0.1  # AdamW's, as published
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Pez:
    """b descents at once from tokens `start` (b, k) towards `targets` (b, e), over the tokens `ids` (all ordinary ones by default).

    After each `step`, `best` (b, k) are the tokens that scored best so far and `best_similarity` (b,) their score: as tokens, not as
    text typed again. Nothing in a step waits for the device.
    """

    def __init__(
        self, encoder: TextEncoder, targets: Tensor, start: Tensor, ids: Tensor | None = None, *, stock: bool = False
    ) -> None:
        self.encoder, self.stock = encoder, stock
        self.targets = F.normalize(targets.to(encoder.device, torch.float32), dim=-1)
        self.ids = encoder.ordinary_ids if ids is None else ids
        self.table = encoder.tower.table[self.ids]
        self.unit = F.normalize(self.table.float(), dim=-1)
        self.vectors = encoder.tower.table[start].float()
        self.mean, self.square = torch.zeros_like(self.vectors), torch.zeros_like(self.vectors)
        self.steps = 0
        self.best = start.clone()
        self.best_similarity = torch.full((len(start),), -1.0, device=encoder.device)
        self.frame = encoder.batch_rows([[-1 - i for i in range(start.shape[1])]])

    def step(self) -> tuple[Tensor, Tensor]:
        """One step; (tokens (b, k), their similarities (b,)) of before it."""
        tokens, similarity, gradient = self.look()
        self._remember(tokens, similarity)
        self._descend(gradient)
        return tokens, similarity

    def look(self) -> tuple[Tensor, Tensor, Tensor]:
        """(nearest tokens (b, k), similarities (b,), gradient of 1 - similarity (b, k, w)) of the vectors as they are."""
        unit = F.normalize(self.table.float(), dim=-1) if self.stock else self.unit
        nearest = (F.normalize(self.vectors, dim=-1) @ unit.T).argmax(-1)
        read = self.table[nearest]
        scored = None
        if self.stock:
            with torch.no_grad():
                scored = self._similarity(read)
        read = read.detach().requires_grad_()
        similarity = self._similarity(read)
        (gradient,) = torch.autograd.grad((1 - similarity).sum(), read)
        return self.ids[nearest], similarity.detach() if scored is None else scored, gradient.float()

    def _similarity(self, vectors: Tensor) -> Tensor:
        outputs = self._padded(vectors) if self.stock else self.frame.outputs(vectors)[:, 0]
        return (F.normalize(outputs.float(), dim=-1) * self.targets).sum(-1)

    def _padded(self, vectors: Tensor) -> Tensor:
        """(b, e) outputs of the whole context, every position of every layer, as encoders compute it that know no better."""
        tower, config, specials = self.encoder.tower, self.encoder.config, self.encoder.specials
        if not config.short or config.pooling == "cls":
            return self.frame.outputs(vectors)[:, 0]  # the whole context is what the frame computes here
        b, k, _ = vectors.shape
        pads = config.context - k - len(specials.start) - len(specials.end)
        around = [
            tower.table[list(ids)].expand(b, -1, -1) for ids in (specials.start, specials.end, [specials.pad] * pads)
        ]
        x = torch.cat([around[0], vectors, *around[1:]], dim=1) + tower.positions[: config.context]
        states = tower.final_norm(tower.states(x))
        at = len(specials.start) + k if config.pooling != "first" else 0
        return tower.project(states[:, at])

    def _remember(self, tokens: Tensor, similarity: Tensor) -> None:
        better = similarity > self.best_similarity
        self.best = torch.where(better.unsqueeze(1), tokens, self.best)
        self.best_similarity = torch.where(better, similarity, self.best_similarity)

    @torch.no_grad()
    def _descend(self, gradient: Tensor) -> None:
        """AdamW (Loshchilov & Hutter 2019). By hand: torch.optim imports torch's compiler, 1.5 s, on its first step."""
        self.steps += 1
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.lerp_(gradient.square(), 1 - BETAS[1])
        mean, square = (m / (1 - beta**self.steps) for m, beta in zip((self.mean, self.square), BETAS, strict=True))
        self.vectors.mul_(1 - RATE * DECAY).sub_(RATE * mean / (square.sqrt() + EPSILON))
