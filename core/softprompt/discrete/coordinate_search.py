"""Coordinate search for a hard readout: remove a few tokens, then insert new ones one by one where they fit best.

The gradient at a neutral filler in every gap proposes the next token, and the encoder scores all proposals in a batch.
A slightly worse round is sometimes accepted, less and less often (simulated annealing, Kirkpatrick et al. 1983).
Replacing several tokens at once (large neighbourhood search, Shaw 1998) improves sequences that no single swap could
improve; position sweeps (Shin et al. 2020, AutoPrompt; Zou et al. 2023, GCG) get stuck there after two rounds.
Shapes: r chains, l tokens, g gaps, m candidates per gap, w width.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from softprompt.discrete.scoring import Scorer
from softprompt.discrete.vocabulary import TypeableVocabulary

CANDIDATES_PER_GAP = 4  # with 8, a round takes 1.3 times as long and the result is no better
REMOVED_TOKENS = (1, 2, 3)  # per round
MAX_GAPS = 16  # tried per token; a longer text tries a random subset each time
INITIAL_TEMPERATURE = 0.003  # in similarity; falls to 0 over the search
MAX_TYPING_CHECKS = 64  # best texts to check for one that survives re-tokenizing


class Candidate(NamedTuple):
    """The best tokens (l,) so far and their similarity. `row` is None until a text survives re-tokenizing."""

    row: Tensor | None
    similarity: float


class CoordinateSearch:
    """r chains of k tokens each, stepped together. The first round may also use `prompt_tokens`."""

    def __init__(
        self,
        scorer: Scorer,
        vocabulary: TypeableVocabulary,
        start: Tensor,
        rng: torch.Generator,
        prompt_tokens: Tensor | None = None,
    ) -> None:
        self.scorer, self.vocabulary, self.rng = scorer, vocabulary, rng
        self.table = scorer.tower.table[vocabulary.ids].float()
        self.filler = self.table.mean(0)
        self.prompt_tokens = vocabulary.ids[:0] if prompt_tokens is None else prompt_tokens
        self.rows = start  # (r, k)
        self.similarities = scorer.score(start).tolist()
        self.best = Candidate(None, -math.inf)
        for row, similarity in zip(start, self.similarities, strict=True):
            self._update_best(row, similarity)
        self.started = False

    def step(self, temperature: float) -> None:
        """Run one round of every chain. The first round builds a new text from scratch."""
        chains, k = self.rows.shape
        if self.started:
            counts = [count for count in REMOVED_TOKENS if count <= k]
            removed = counts[int(torch.randint(len(counts), (1,), generator=self.rng))]
            remaining = torch.rand(chains, k, generator=self.rng).argsort(dim=1)[:, removed:].sort(dim=1).values
            rows = self.rows.gather(1, remaining.to(self.rows.device))
        else:
            rows = self.rows[:1, :0]  # every chain would build the same text
        while rows.shape[1] < k:
            rows, similarities = self._insert_token(rows)
        if not self.started:
            rows, similarities = rows.expand(chains, -1), similarities * chains
        for chain, (row, similarity) in enumerate(zip(rows, similarities, strict=True)):
            acceptance = math.exp(min(0.0, similarity - self.similarities[chain]) / max(temperature, 1e-9))
            if not self.started or float(torch.rand(1, generator=self.rng)) < acceptance:
                self.rows[chain], self.similarities[chain] = row, similarity
            self._update_best(row, similarity)
        self.started = True

    def _insert_token(self, rows: Tensor) -> tuple[Tensor, list[float]]:
        """Insert one token into each row (r, l). Returns the best typeable rows (r, l + 1) and their similarities."""
        chains, length = rows.shape
        gaps = torch.randperm(length + 1, generator=self.rng)[:MAX_GAPS].sort().values.tolist()
        positions = torch.arange(length, device=rows.device)
        shifted = torch.stack([positions + (positions >= gap) for gap in gaps])  # (g, l) new positions of the tokens
        gap_index = torch.tensor(gaps, device=rows.device)
        opened = rows.new_zeros(chains, len(gaps), length + 1)
        opened.scatter_(2, shifted.expand(chains, -1, -1), rows.unsqueeze(1).expand(-1, len(gaps), -1))
        candidates = self._propose_tokens(opened, gap_index)  # (r, g, m)
        m = candidates.shape[-1]
        filled = opened.unsqueeze(2).repeat(1, 1, m, 1)
        filled.scatter_(3, gap_index.view(1, -1, 1, 1).expand(chains, -1, m, 1), candidates.unsqueeze(-1))
        # neighbouring gaps share a batch, so that the tokens before the first gap are encoded once
        gaps_per_batch = max(1, self.scorer.batch_size // (chains * m))
        parts = [filled[:, i : i + gaps_per_batch] for i in range(0, len(gaps), gaps_per_batch)]
        scores = [
            self.scorer.score(part.flatten(0, 1), gaps[i * gaps_per_batch]).view(chains, -1)
            for i, part in enumerate(parts)
        ]
        return self._pick_best(filled.flatten(1, 2), torch.cat(scores, dim=1))

    def _propose_tokens(self, opened: Tensor, gap_index: Tensor) -> Tensor:
        """Return (r, g, m) tokens for the gaps `gap_index` (g,) of `opened` (r, g, l + 1)."""
        chains, gaps, _ = opened.shape
        vectors = self.scorer.tower.table[opened]
        all_gaps = torch.arange(gaps, device=opened.device)
        vectors[:, all_gaps, gap_index] = self.filler.to(vectors.dtype)
        _, gradients = self.scorer.gradients(vectors.flatten(0, 1))
        gradients = gradients.view(chains, gaps, *gradients.shape[1:])[:, all_gaps, gap_index].float()
        top = (gradients @ self.table.T).topk(min(CANDIDATES_PER_GAP, len(self.table)), dim=-1).indices
        tokens = self.vocabulary.ids[top]
        return tokens if self.started else torch.cat([tokens, self.prompt_tokens.expand(chains, gaps, -1)], dim=-1)

    def _pick_best(self, rows: Tensor, scores: Tensor) -> tuple[Tensor, list[float]]:
        """Pick each chain's best row of (r, c, l) that survives re-tokenizing. The similarity is -inf if none does."""
        top = scores.topk(min(MAX_TYPING_CHECKS, scores.shape[1]), dim=1)
        best, similarities = [], []
        for chain_rows, values, order in zip(rows, top.values.tolist(), top.indices, strict=True):
            i = next((i for i, row in enumerate(order) if self.vocabulary.survives(chain_rows[row])), None)
            best.append(chain_rows[order[i or 0]])
            similarities.append(-math.inf if i is None else values[i])
        return torch.stack(best), similarities

    def _update_best(self, row: Tensor, similarity: float) -> None:
        if similarity > self.best.similarity and self.vocabulary.survives(row):
            self.best = Candidate(row.clone(), similarity)
