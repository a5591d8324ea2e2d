"""Looking for the hard readout by exchange: a few tokens are taken out, and as many put back one by one where they fit best.

Where the next token should stand and which it should be is proposed by the gradient at a neutral filler in every gap, and judged by the
encoder in one batch. A round that ends a little worse is still taken now and then, less and less so (Kirkpatrick et al. 1983). The
neighbourhood is that of Shaw 1998 (large neighbourhood search): sequences in which no single exchange helps any more, which is where
sweeps over the positions (Shin et al. 2020, AutoPrompt; Zou et al. 2023, GCG) end after two of them, are left by it.
Shapes: r chains, l tokens, g gaps, m candidates a gap, w width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from softprompt.discrete.scoring import Scorer
from softprompt.discrete.vocabulary import TypeableVocabulary

CANDIDATES = 4  # a gap: with 8, as many rounds take 1.3 times as long and end no better
TAKEN_OUT = (1, 2, 3)  # tokens a round
MAX_GAPS = 16  # looked at for one token; a longer text has others looked at each time
WARMTH = 0.003  # of similarity: by how much worse a round may end, at first
CHECKED = 64  # texts of the best scores that are tried for one that survives being typed


class Candidate(NamedTuple):
    """The best so far: tokens (l,) and their similarity; None where nothing has survived being typed yet."""

    row: Tensor | None
    similarity: float


class CoordinateSearch:
    """r chains of k tokens each, all `step`ped together. `own` are tokens that the first round may use beside the gradient's."""

    def __init__(
        self, scorer: Scorer, typist: TypeableVocabulary, start: Tensor, rng: torch.Generator, own: Tensor | None = None
    ) -> None:
        self.scorer, self.typist, self.rng = scorer, typist, rng
        self.table = scorer.tower.table[typist.ids].float()
        self.filler = self.table.mean(0)
        self.own = typist.ids[:0] if own is None else own
        self.rows = start  # (r, k)
        self.now = scorer.scores(start).tolist()
        self.best = Candidate(None, -math.inf)
        for row, similarity in zip(start, self.now, strict=True):
            self._keep(row, similarity)
        self.begun = False

    def step(self, warmth: float) -> None:
        """One round of every chain; the first one builds anew from nothing."""
        chains, k = self.rows.shape
        if self.begun:
            choice = [count for count in TAKEN_OUT if count <= k]
            out = choice[int(torch.randint(len(choice), (1,), generator=self.rng))]
            stay = torch.rand(chains, k, generator=self.rng).argsort(dim=1)[:, out:].sort(dim=1).values
            rows = self.rows.gather(1, stay.to(self.rows.device))
        else:
            rows = self.rows[:1, :0]  # from nothing every chain would build the same
        while rows.shape[1] < k:
            rows, similarities = self._put_in(rows)
        if not self.begun:
            rows, similarities = rows.expand(chains, -1), similarities * chains
        for chain, (row, similarity) in enumerate(zip(rows, similarities, strict=True)):
            chance = math.exp(min(0.0, similarity - self.now[chain]) / max(warmth, 1e-9))
            if not self.begun or float(torch.rand(1, generator=self.rng)) < chance:
                self.rows[chain], self.now[chain] = row, similarity
            self._keep(row, similarity)
        self.begun = True

    def _put_in(self, rows: Tensor) -> tuple[Tensor, list[float]]:
        """(r, l + 1) rows with the best token put in at the best gap, of those that survive being typed; their similarities."""
        chains, length = rows.shape
        gaps = torch.randperm(length + 1, generator=self.rng)[:MAX_GAPS].sort().values.tolist()
        places = torch.arange(length, device=rows.device)
        opened = torch.stack([places + (places >= gap) for gap in gaps])  # (g, l) where each row's tokens go
        at = torch.tensor(gaps, device=rows.device)
        wide = rows.new_zeros(chains, len(gaps), length + 1)
        wide.scatter_(2, opened.expand(chains, -1, -1), rows.unsqueeze(1).expand(-1, len(gaps), -1))
        candidates = self._proposed(wide, at)  # (r, g, m)
        m = candidates.shape[-1]
        tried = wide.unsqueeze(2).repeat(1, 1, m, 1)
        tried.scatter_(3, at.view(1, -1, 1, 1).expand(chains, -1, m, 1), candidates.unsqueeze(-1))
        # neighbouring gaps go into one batch, which shares what stands before the first of them
        together = max(1, self.scorer.batch // (chains * m))
        parts = [tried[:, i : i + together] for i in range(0, len(gaps), together)]
        scores = [
            self.scorer.scores(part.flatten(0, 1), gaps[i * together]).view(chains, -1) for i, part in enumerate(parts)
        ]
        return self._best_of(tried.flatten(1, 2), torch.cat(scores, dim=1))

    def _proposed(self, wide: Tensor, at: Tensor) -> Tensor:
        """(r, g, m) tokens for the gaps `at` (g,) of `wide` (r, g, l + 1)."""
        chains, gaps, _ = wide.shape
        vectors = self.scorer.tower.table[wide]
        each = torch.arange(gaps, device=wide.device)
        vectors[:, each, at] = self.filler.to(vectors.dtype)
        _, slopes = self.scorer.slopes(vectors.flatten(0, 1))
        slopes = slopes.view(chains, gaps, *slopes.shape[1:])[:, each, at].float()
        top = (slopes @ self.table.T).topk(min(CANDIDATES, len(self.table)), dim=-1).indices
        found = self.typist.ids[top]
        return found if self.begun else torch.cat([found, self.own.expand(chains, gaps, -1)], dim=-1)

    def _best_of(self, rows: Tensor, scores: Tensor) -> tuple[Tensor, list[float]]:
        """Of every chain's rows (r, c, l), the best that survives being typed; -inf is the similarity where none of the best does."""
        top = scores.topk(min(CHECKED, scores.shape[1]), dim=1)
        kept, similarities = [], []
        for its, values, order in zip(rows, top.values.tolist(), top.indices, strict=True):
            i = next((i for i, row in enumerate(order) if self.typist.survives(its[row])), None)
            kept.append(its[order[i or 0]])
            similarities.append(-math.inf if i is None else values[i])
        return torch.stack(kept), similarities

    def _keep(self, row: Tensor, similarity: float) -> None:
        if similarity > self.best.similarity and self.typist.survives(row):
            self.best = Candidate(row.clone(), similarity)
