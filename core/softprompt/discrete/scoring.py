"""How near token sequences are to a target, many at once, and which way their embeddings should move.

Shapes: b sequences, l tokens, w width, e embed_dim. Where attention is causal and the end token is read, what sequences have in common
at their beginning is computed once.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.rows import TokenBatch
from softprompt.encoders.clip.text_encoder import TextEncoder

ON_CPU, ON_DEVICE = 64, 4096  # sequences in one batch: what fits into a cpu's caches; what fills a GPU


class Scorer:
    """Similarities of token sequences to `target` (e,). `evaluated` counts those that were scored."""

    def __init__(self, encoder: TextEncoder, target: Tensor) -> None:
        self.encoder, self.tower = encoder, encoder.tower
        self.target = F.normalize(target.to(encoder.device, torch.float32), dim=-1)
        self.batch = ON_CPU if encoder.device.type == "cpu" else ON_DEVICE
        self.evaluated = 0
        config = encoder.config
        self.shares = config.short and config.pooling in ("argmax", "eos")
        self._frames: dict[int, TokenBatch] = {}

    def of_vectors(self, vectors: Tensor) -> Tensor:
        """(b,) similarities of input embeddings (b, l, w); gradients flow to them."""
        count = vectors.shape[1]
        if count not in self._frames:
            self._frames[count] = self.encoder.batch_rows([[-1 - i for i in range(count)]])
        return self._similarity(self._frames[count].outputs(vectors)[:, 0])

    def slopes(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(similarities (b,), their gradients (b, l, w)) at input embeddings (b, l, w)."""
        similarities, slopes = [], []
        for part in torch.split(vectors, self.batch):
            part = part.detach().requires_grad_()
            similarity = self.of_vectors(part)
            slopes.append(torch.autograd.grad(similarity.sum(), part)[0])
            similarities.append(similarity.detach())
        return torch.cat(similarities), torch.cat(slopes)

    @torch.no_grad()
    def scores(self, rows: Tensor, shared: int = 0) -> Tensor:
        """(b,) similarities of rows (g, m, l) or (b, l) of tokens; the m of a group have their first `shared` in common."""
        if rows.ndim == 2:
            rows = rows.unsqueeze(1)
            shared = 0
        self.evaluated += rows.shape[0] * rows.shape[1]
        groups = max(1, self.batch // rows.shape[1])
        return torch.cat([self._scores(part, shared) for part in torch.split(rows, groups)])

    def _scores(self, rows: Tensor, shared: int) -> Tensor:
        g, m = rows.shape[:2]
        table, positions, specials = self.tower.table, self.tower.positions, self.encoder.specials
        if not self.shares:
            return self.of_vectors(table[rows.flatten(0, 1)])
        first = len(specials.start)
        ids = rows.new_tensor([*specials.start])
        before = torch.cat([ids.expand(g, -1), rows[:, 0, :shared]], dim=1)
        past = self.tower.past(table[before] + positions[: first + shared])
        end = rows.new_tensor(specials.end[:1]).expand(g * m, 1)
        after = torch.cat([rows[:, :, shared:].flatten(0, 1), end], dim=1)
        n = after.shape[1]
        x = table[after] + positions[first + shared : first + shared + n]
        past = [both.repeat_interleave(m, dim=1) for both in past]
        mask = torch.ones(n, first + shared + n, dtype=torch.bool, device=x.device).tril(first + shared)
        at = torch.full((g * m,), n - 1, device=x.device)
        return self._similarity(self.tower.pooled_outputs(x, at, mask.expand(g * m, 1, -1, -1), past))

    def _similarity(self, outputs: Tensor) -> Tensor:
        return F.normalize(outputs.float(), dim=-1) @ self.target
