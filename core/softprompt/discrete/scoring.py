"""Score many token sequences against a target at once, and compute gradients at their embeddings.

Shapes: b sequences, l tokens, w width, e embed_dim. If attention is causal and pooling uses the end token, the shared
prefix of a group of sequences is computed only once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.rows import TokenBatch
from softprompt.encoders.clip.text_encoder import TextEncoder

CPU_BATCH_SIZE, GPU_BATCH_SIZE = 64, 4096  # sequences: as many as fit into a CPU's caches or fill a GPU


class Scorer:
    """Scores token sequences by their similarity to `target` (e,). `evaluated` counts the scored sequences."""

    def __init__(self, encoder: TextEncoder, target: Tensor) -> None:
        self.encoder, self.tower = encoder, encoder.tower
        self.target = F.normalize(target.to(encoder.device, torch.float32), dim=-1)
        self.batch_size = CPU_BATCH_SIZE if encoder.device.type == "cpu" else GPU_BATCH_SIZE
        self.evaluated = 0
        config = encoder.config
        self.shares_prefix = config.ignores_padding and config.pooling in ("argmax", "eos")
        self._token_batches: dict[int, TokenBatch] = {}

    def score_vectors(self, vectors: Tensor) -> Tensor:
        """Return similarities (b,) of input embeddings (b, l, w). Gradients flow to the embeddings."""
        length = vectors.shape[1]
        if length not in self._token_batches:
            self._token_batches[length] = self.encoder.batch_rows([[-1 - i for i in range(length)]])
        return self._similarity(self._token_batches[length].outputs(vectors)[:, 0])

    def gradients(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Return similarities (b,) of input embeddings (b, l, w), and their gradients (b, l, w)."""
        similarities, gradients = [], []
        for part in torch.split(vectors, self.batch_size):
            part = part.detach().requires_grad_()
            similarity = self.score_vectors(part)
            gradients.append(torch.autograd.grad(similarity.sum(), part)[0])
            similarities.append(similarity.detach())
        return torch.cat(similarities), torch.cat(gradients)

    @torch.no_grad()
    def score(self, rows: Tensor, shared: int = 0) -> Tensor:
        """Return similarities (b,) of token rows (b, l), or of groups (g, m, l) that share their first `shared` ids."""
        if rows.ndim == 2:
            rows = rows.unsqueeze(1)
            shared = 0
        self.evaluated += rows.shape[0] * rows.shape[1]
        groups = max(1, self.batch_size // rows.shape[1])
        return torch.cat([self._score_groups(part, shared) for part in torch.split(rows, groups)])

    def _score_groups(self, rows: Tensor, shared: int) -> Tensor:
        g, m = rows.shape[:2]
        table, positions, specials = self.tower.table, self.tower.positions, self.encoder.specials
        if not self.shares_prefix:
            return self.score_vectors(table[rows.flatten(0, 1)])
        first = len(specials.start)
        start = rows.new_tensor([*specials.start])
        prefix = torch.cat([start.expand(g, -1), rows[:, 0, :shared]], dim=1)
        past = self.tower.compute_past(table[prefix] + positions[: first + shared])
        end = rows.new_tensor(specials.end[:1]).expand(g * m, 1)
        suffix = torch.cat([rows[:, :, shared:].flatten(0, 1), end], dim=1)
        n = suffix.shape[1]
        x = table[suffix] + positions[first + shared : first + shared + n]
        past = [layer_past.repeat_interleave(m, dim=1) for layer_past in past]
        mask = torch.ones(n, first + shared + n, dtype=torch.bool, device=x.device).tril(first + shared)
        pooled_at = torch.full((g * m,), n - 1, device=x.device)
        return self._similarity(self.tower.pooled_outputs(x, pooled_at, mask.expand(g * m, 1, -1, -1), past))

    def _similarity(self, outputs: Tensor) -> Tensor:
        return F.normalize(outputs.float(), dim=-1) @ self.target
