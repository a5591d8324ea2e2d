"""PEZ (Wen et al. 2023, "Hard prompts made easy"): gradient descent on vectors, evaluated at their nearest tokens.

Each step replaces every vector with its nearest token, takes the gradient there, and applies it to the vector. *Stock*
is PEZ as published: it normalizes the table at every step, pads the text to the full context length, and uses one
forward pass for the score and another for the gradient. *Fast* computes the same with one table normalization, no
padding and one forward pass. Shapes: b prompts or starts, k tokens, w width, e embed_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.text_encoder import TextEncoder

RATE, DECAY = 0.1, 0.1  # AdamW's learning rate and weight decay, as published
BETAS, EPSILON = (0.9, 0.999), 1e-8


class Pez:
    """b parallel searches from tokens `start` (b, k) for `targets` (b, e), over `ids` (by default all ordinary tokens).

    After each `step`, `best` (b, k) holds the best tokens so far and `best_similarity` (b,) their similarities, without
    re-tokenizing. No step waits for the device.
    """

    def __init__(
        self, encoder: TextEncoder, targets: Tensor, start: Tensor, ids: Tensor | None = None, *, stock: bool = False
    ) -> None:
        self.encoder, self.stock = encoder, stock
        self.targets = F.normalize(targets.to(encoder.device, torch.float32), dim=-1)
        self.ids = encoder.ordinary_ids if ids is None else ids
        self.table = encoder.tower.table[self.ids]
        self.unit_table = F.normalize(self.table.float(), dim=-1)
        self.vectors = encoder.tower.table[start].float()
        self.first_moment, self.second_moment = torch.zeros_like(self.vectors), torch.zeros_like(self.vectors)
        self.steps = 0
        self.best = start.clone()
        self.best_similarity = torch.full((len(start),), -1.0, device=encoder.device)
        self.token_batch = encoder.batch_rows([[-1 - i for i in range(start.shape[1])]])

    def step(self) -> tuple[Tensor, Tensor]:
        """Take one step. Returns the tokens (b, k) and similarities (b,) before the step."""
        tokens, similarity, gradient = self.evaluate()
        self._update_best(tokens, similarity)
        self._update_vectors(gradient)
        return tokens, similarity

    def evaluate(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the nearest tokens (b, k), similarities (b,) and the gradient of 1 - similarity (b, k, w)."""
        unit_table = F.normalize(self.table.float(), dim=-1) if self.stock else self.unit_table
        nearest = (F.normalize(self.vectors, dim=-1) @ unit_table.T).argmax(-1)
        embedded = self.table[nearest]
        score = None
        if self.stock:
            with torch.no_grad():
                score = self._similarity(embedded)
        embedded = embedded.detach().requires_grad_()
        similarity = self._similarity(embedded)
        (gradient,) = torch.autograd.grad((1 - similarity).sum(), embedded)
        return self.ids[nearest], similarity.detach() if score is None else score, gradient.float()

    def _similarity(self, vectors: Tensor) -> Tensor:
        outputs = self._padded_outputs(vectors) if self.stock else self.token_batch.outputs(vectors)[:, 0]
        return (F.normalize(outputs.float(), dim=-1) * self.targets).sum(-1)

    def _padded_outputs(self, vectors: Tensor) -> Tensor:
        """Return outputs (b, e), computing every position of the full context length in every layer."""
        tower, config, specials = self.encoder.tower, self.encoder.config, self.encoder.specials
        if not config.ignores_padding or config.pooling == "cls":
            return self.token_batch.outputs(vectors)[:, 0]  # here the token batch computes the full context itself
        b, k, _ = vectors.shape
        pads = config.context - k - len(specials.start) - len(specials.end)
        around = [
            tower.table[list(ids)].expand(b, -1, -1) for ids in (specials.start, specials.end, [specials.pad] * pads)
        ]
        x = torch.cat([around[0], vectors, *around[1:]], dim=1) + tower.positions[: config.context]
        states = tower.final_norm(tower.states(x))
        pooled_at = len(specials.start) + k if config.pooling != "first" else 0
        return tower.project(states[:, pooled_at])

    def _update_best(self, tokens: Tensor, similarity: Tensor) -> None:
        better = similarity > self.best_similarity
        self.best = torch.where(better.unsqueeze(1), tokens, self.best)
        self.best_similarity = torch.where(better, similarity, self.best_similarity)

    @torch.no_grad()
    def _update_vectors(self, gradient: Tensor) -> None:
        """Apply AdamW (Loshchilov & Hutter 2019). torch.optim would take 1.5 s to import torch's compiler."""
        self.steps += 1
        self.first_moment.lerp_(gradient, 1 - BETAS[0])
        self.second_moment.lerp_(gradient.square(), 1 - BETAS[1])
        first, second = (
            moment / (1 - beta**self.steps)
            for moment, beta in zip((self.first_moment, self.second_moment), BETAS, strict=True)
        )
        self.vectors.mul_(1 - RATE * DECAY).sub_(RATE * first / (second.sqrt() + EPSILON))
