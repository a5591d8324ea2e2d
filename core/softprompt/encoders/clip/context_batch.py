"""Many soft prompts inside fixed contexts, with everything around the soft tokens precomputed.

If attention is causal and pooling is at the end token, the positions before the soft tokens are the same at every step.
Their keys and values are computed once (`TextTransformer.compute_past`), and each step computes only the positions from
the first soft token to the end token:

    <start> a photo of [v1] [v2] on a hill <end> <padding>
    |----- past -----| |------ computed -------|

The result is exact. For three tokens in the usual contexts, a step computes about 60 % of the positions.

Shapes: r soft prompts, b contexts, k soft tokens, n positions, m computed positions, p past positions, w width,
e embed_dim.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.cpu_autograd import pooled_outputs
from softprompt.encoders.clip.rows import EncoderOutput, pad_rows, read_states, soft_rows
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.transformer import Past
from softprompt.text_states import HiddenStateSpec


class ContextBatch:
    """Fixed contexts for soft prompts of several lengths. `set_token_counts` selects the length of each soft prompt.

    Args:
        token_counts: all numbers of soft tokens that a soft prompt may have.
        all_positions: compute every position; `read_states` needs them.

    Raises:
        PromptError: a context has no room for the soft tokens.
    """

    def __init__(
        self, encoder: TextEncoder, contexts: Sequence[str], token_counts: Sequence[int], all_positions: bool = False
    ) -> None:
        tower, config, specials = encoder.tower, encoder.config, encoder.specials
        self.tower, self.token_counts, self.context_count = tower, list(token_counts), len(contexts)
        rows = [row for k in token_counts for row in soft_rows(encoder, contexts, k)]
        for row in rows:
            encoder.check_fits(len(row))
        ids, pooled_at, padding_mask, is_content = pad_rows(tower, specials, rows)
        n = ids.shape[1]
        has_past = config.causal and config.pooling in ("argmax", "eos") and not all_positions
        before = (ids < 0).int().argmax(dim=1) if has_past else torch.zeros(len(ids), dtype=torch.long)
        m = int((pooled_at - before).max()) + 1 if has_past else n
        # (rows, m); a row's last positions may repeat n - 1, and nothing reads them
        positions = (before.unsqueeze(1) + torch.arange(m)).clamp(max=n - 1)
        computed_ids = ids.gather(1, positions)
        device, dtype = encoder.device, tower.table.dtype

        def by_count(values: Tensor) -> Tensor:
            """Reshape (rows, …) to (counts, contexts, …), on the device."""
            return values.view(len(token_counts), len(contexts), *values.shape[1:]).to(device)

        self.start_length = len(specials.start)
        self._is_content, self._pooled_at = by_count(is_content), by_count(pooled_at - before)
        # soft tokens are inserted with a one-hot product: on CUDA, indexing sums its gradient in no fixed order
        one_hot = computed_ids.unsqueeze(-1) == -1 - torch.arange(max(token_counts))
        constant = (
            tower.table[computed_ids.clamp(min=0).to(device)] * (computed_ids >= 0).unsqueeze(-1).to(device)
            + tower.positions[positions.to(device)]
        )
        if tower.cls is not None:
            cls = (tower.cls + tower.positions[config.context]).expand(len(ids), 1, -1)
            constant, one_hot = torch.cat([constant, cls], dim=1), F.pad(one_hot, (0, 0, 0, 1))
        self._one_hot, self._constant = by_count(one_hot.to(dtype)).flatten(1, 2), by_count(constant).flatten(1, 2)
        self.past: Past | None = None
        mask = padding_mask
        if has_past:
            self.past, mask = self._compute_past(ids, before, m, len(contexts))
        self._mask = None if mask is None else by_count(mask)
        self.set_token_counts([token_counts[0]])

    def _compute_past(self, ids: Tensor, before: Tensor, m: int, context_count: int) -> tuple[Past, Tensor]:
        """Return the keys and values before the soft tokens, and an attention bias (rows, 1, m, p + m)."""
        p = int(before.max())
        device, dtype = self.tower.table.device, self.tower.table.dtype
        prefix = ids[:context_count, :p].clamp(min=0).to(device)  # the same for every token count
        with torch.no_grad():
            past = self.tower.compute_past(self.tower.table[prefix] + self.tower.positions[:p])
        visible = torch.cat(
            [
                (torch.arange(p) < before.unsqueeze(1)).unsqueeze(1).expand(-1, m, -1),
                torch.ones(m, m, dtype=torch.bool).tril().expand(len(ids), -1, -1),
            ],
            dim=2,
        )
        return past, torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, float("-inf")).unsqueeze(1)

    @property
    def positions(self) -> int:
        """Number of positions computed for one soft prompt."""
        return self._constant.shape[1]

    def set_token_counts(self, token_counts: Sequence[int]) -> None:
        """Set the token count of each soft prompt; each must be one of the counts given at construction."""
        indices = torch.tensor([self.token_counts.index(k) for k in token_counts], device=self._pooled_at.device)
        is_uniform = len(self.token_counts) == 1
        self.one_hot, self.constant = (
            (self._one_hot[0], self._constant[0]) if is_uniform else (self._one_hot[indices], self._constant[indices])
        )
        self.is_content = self._is_content[0] if is_uniform else self._is_content[indices]
        self.pooled_at = self._pooled_at[indices].flatten(0, 1)
        self.mask = None if self._mask is None else self._mask[indices].flatten(0, 1)

    def _insert(self, soft: Tensor) -> Tensor:
        """Return the embedded token rows (r x b, m, w) with soft tokens inserted."""
        x = self.one_hot @ soft.to(self.constant.dtype) + self.constant
        return x.view(len(soft) * self.context_count, -1, x.shape[-1])

    def outputs(self, soft: Tensor) -> Tensor:
        """Return pooled embeddings (r, b, e) in float32, not normalized. Gradients flow to `soft` (r, largest k, w)."""
        pooled = pooled_outputs(self.tower, self._insert(soft), self.pooled_at, self.mask, self.past)
        return pooled.float().view(len(soft), self.context_count, -1)

    def read_states(self, soft: Tensor, spec: HiddenStateSpec) -> EncoderOutput:
        """See `TokenBatch.read_states`. Requires `all_positions`."""
        return read_states(
            self.tower,
            self._insert(soft),
            self.pooled_at,
            self.mask,
            spec,
            (len(soft), self.context_count),
            self.is_content,
            self.start_length,
        )
