"""Token rows, which may contain soft tokens, and padded batches of them.

A token row is a list of token ids without start and end tokens. The ids -1, -2, … are soft tokens 0, 1, …. For example,
`[v1][v2] on a hill` before and after padding:

           -1 -2 525 320 3965
    49406  -1 -2 525 320 3965  49407  0  0  0  …
    start  content             end    padding

Shapes: r sets of k soft tokens, w width, b token rows, n positions, m content positions of the longest token row,
e embed_dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.base import FrozenModel, PromptTokenizer, Row, SpecialTokens, encode_prompt
from softprompt.encoders.clip.cpu_autograd import pooled_outputs
from softprompt.encoders.clip.transformer import Pooling, TextTransformer, block_forward
from softprompt.prompts.contexts import PLACEHOLDER, split_context
from softprompt.text_states import HiddenStateSpec

ALONE = PLACEHOLDER  # the context that adds no words
MAX_CACHED_CONTEXTS = 256  # per tokenizer
_context_cache: WeakKeyDictionary[PromptTokenizer, dict[str, tuple[list[int], list[int]]]] = WeakKeyDictionary()
END_TOKEN_POOLINGS: tuple[Pooling, ...] = ("argmax", "eos")  # both pool at the end token


def rows_in_context(model: FrozenModel, context: str, rows: Sequence[Row]) -> list[list[int]]:
    """Put the context's tokens around each token row."""
    before, after = _context_tokens(model.tokenizer, context)
    return [[*before, *row, *after] for row in rows]


def _context_tokens(tokenizer: PromptTokenizer, context: str) -> tuple[list[int], list[int]]:
    """Return the context's tokens before and after its `{}`.

    Cached: one training run asks 115 times for the same 30 contexts.
    """
    cache = _context_cache.setdefault(tokenizer, {})
    if context not in cache:
        if len(cache) >= MAX_CACHED_CONTEXTS:
            cache.clear()
        before, after = (encode_prompt(tokenizer, words) if words else [] for words in split_context(context))
        cache[context] = before, after
    return cache[context]


def soft_rows(model: FrozenModel, contexts: Sequence[str], tokens: int) -> list[list[int]]:
    """Return one token row per context, with soft tokens 0 to `tokens` - 1 inside."""
    soft_tokens = [-1 - i for i in range(tokens)]
    return [row for context in contexts for row in rows_in_context(model, context, [soft_tokens])]


def contexts_with_room(model: FrozenModel, contexts: Sequence[str], tokens: int) -> list[str]:
    """Return the contexts with room for this many tokens."""
    return [
        context
        for context in contexts
        if len(rows_in_context(model, context, [[0] * tokens])[0]) <= model.max_prompt_tokens
    ]


class PaddedRows(NamedTuple):
    """Token rows with start tokens, end tokens and padding, on the CPU.

    Attributes:
        ids: (b, n), negative for soft tokens.
        pooled_at: (b,) positions of the pooled embeddings, the same as in open_clip.
        mask: (b, 1, n + 1, n + 1), or None if the tower needs no mask.
        is_content: (b, m) true at the row's own tokens, counted after the start tokens; false at end tokens and
            padding.
    """

    ids: Tensor
    pooled_at: Tensor
    mask: Tensor | None
    is_content: Tensor


def pad_rows(tower: TextTransformer, specials: SpecialTokens, rows: Sequence[Row]) -> PaddedRows:
    """Pad token rows to the context length like open_clip, or only to the longest if the tower ignores padding."""
    config = tower.config
    full = [[*specials.start, *row, *specials.end] for row in rows]
    longest = max(map(len, full))
    if config.pooling == "cls":
        # open_clip decides whether a position is visible by the token before it, so the first padding token is visible
        # and must exist
        longest = min(longest + 1, config.context)
    n = longest if config.ignores_padding else config.context
    ids = torch.tensor([[*row, *[specials.pad] * (n - len(row))] for row in full])
    is_content = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
    mask = cls_mask(ids, specials.pad) if config.pooling == "cls" else None
    return PaddedRows(ids, pooled_positions(ids, tower, specials), mask, is_content)


class TokenBatch:
    """A batch of token rows. Hard tokens are embedded once; each call inserts soft tokens and runs the text tower."""

    def __init__(self, tower: TextTransformer, specials: SpecialTokens, rows: Sequence[Row]) -> None:
        device = tower.table.device
        ids, pooled_at, mask, is_content = pad_rows(tower, specials, rows)
        self.tower, self.start_length = tower, len(specials.start)
        is_soft = ids < 0
        is_hard = (~is_soft).unsqueeze(-1).to(device)
        self.embedded = tower.table[ids.clamp(min=0).to(device)] * is_hard + tower.positions[: ids.shape[1]]
        if tower.cls is not None:
            cls = (tower.cls + tower.positions[tower.config.context]).expand(len(rows), 1, -1)
            self.embedded = torch.cat([self.embedded, cls], dim=1)
        self.pooled_at, self.is_content = pooled_at.to(device), is_content.to(device)
        self.mask = None if mask is None else mask.to(device)
        self.soft_positions = is_soft.nonzero().to(device)  # (soft tokens in all rows, 2) row and position
        self.soft_indices = (-1 - ids[is_soft]).to(device)  # the soft token's index at each of these positions

    def _insert(self, soft: Tensor | None) -> tuple[Tensor, int]:
        """Return the embedded token rows (r x b, n, w) with soft tokens inserted, and r."""
        if soft is None:
            return self.embedded, 1
        r = soft.shape[0]
        embedded = self.embedded.expand(r, *self.embedded.shape)
        if len(self.soft_indices):
            rows, positions = self.soft_positions.T
            # a one-hot product, not soft[:, indices]: indexing sums the gradient of a repeated index in no fixed order
            chosen = F.one_hot(self.soft_indices, soft.shape[1]).to(embedded.dtype) @ soft.to(embedded.dtype)
            indices = (torch.arange(r, device=embedded.device).unsqueeze(1), rows, positions)
            embedded = embedded.index_put(indices, chosen + self.embedded[rows, positions])
        return embedded.flatten(0, 1), r

    def outputs(self, soft: Tensor | None = None) -> Tensor:
        """Return pooled embeddings (r, b, e), in float32 and not normalized. Gradients flow to `soft` (r, k, w)."""
        x, r = self._insert(soft)
        mask = None if self.mask is None else self.mask.repeat(r, 1, 1, 1)
        return pooled_outputs(self.tower, x, self.pooled_at.repeat(r), mask).float().view(r, len(self.is_content), -1)

    def read_states(self, soft: Tensor | None, spec: HiddenStateSpec) -> EncoderOutput:
        """Return pooled embeddings and hidden states for `spec` from one pass. Gradients flow to `soft` (r, k, w)."""
        x, r = self._insert(soft)
        mask = None if self.mask is None else self.mask.repeat(r, 1, 1, 1)
        return read_states(
            self.tower,
            x,
            self.pooled_at.repeat(r),
            mask,
            spec,
            (r, len(self.is_content)),
            self.is_content,
            self.start_length,
        )


class EncoderOutput(NamedTuple):
    """Pooled embeddings and hidden states.

    Attributes:
        outputs: (r, b, e) pooled embeddings, not normalized.
        states: (r, b, m, w) hidden states after the start tokens, or (r, b, 1, w) for a family that uses one vector.
        is_content: (b, m) or (r, b, m) true for states of the row's own tokens; false for end tokens and padding.
    """

    outputs: Tensor
    states: Tensor
    is_content: Tensor


def read_states(
    tower: TextTransformer,
    x: Tensor,
    pooled_at: Tensor,
    mask: Tensor | None,
    spec: HiddenStateSpec,
    shape: tuple[int, int],
    is_content: Tensor,
    start_length: int,
) -> EncoderOutput:
    """Run the tower on embedded token rows. Return pooled embeddings and the hidden states for `spec`.

    Args:
        x: (r x b, n, w) embedded token rows.
        shape: (r, b).
        start_length: number of start tokens.
    """
    (r, b), m = shape, is_content.shape[-1]
    states = tower.states(x, mask, len(tower.blocks) - 1)
    if spec.last and not spec.pooled:  # the last block's states are needed at every position
        states = block_forward(states, tower.blocks[-1], tower.config, mask)
        pooled = tower.final_norm(states[torch.arange(r * b, device=pooled_at.device), pooled_at])
    else:
        pooled = tower.pooled(states, pooled_at, mask)
    outputs = tower.project(pooled).float().view(r, b, -1)
    if spec.pooled:
        if tower.config.pooling not in END_TOKEN_POOLINGS:  # the model pools elsewhere: compute the end token's too
            end = start_length + is_content.sum(-1)
            pooled = tower.pooled(states, end.expand(r, b).flatten(), mask)
        return EncoderOutput(outputs, pooled.float().view(r, b, 1, -1), torch.ones_like(is_content[..., :1]))
    states = states[:, start_length : start_length + m]
    states = tower.final_norm(states) if spec.normed else states
    return EncoderOutput(outputs, states.float().reshape(r, b, m, -1), is_content)


def pooled_positions(ids: Tensor, tower: TextTransformer, specials: SpecialTokens) -> Tensor:
    """Return the positions (b,) where open_clip pools ids (b, n).

    If the text contains an end token, open_clip's own rule still decides.
    """
    rows, n = ids.shape
    match tower.config.pooling:
        case "argmax":
            return (ids == ids.max(dim=1, keepdim=True).values).int().argmax(dim=1)
        case "eos":
            return (ids == specials.end[0]).int().argmax(dim=1)
        case "first":
            return torch.zeros(rows, dtype=torch.long)
        case "last":
            return torch.full((rows,), n - 1)
        case "cls":
            return torch.full((rows,), n)


def cls_mask(ids: Tensor, pad: int) -> Tensor:
    """Return CoCa's causal mask (b, 1, n + 1, n + 1).

    Position i is hidden if token i - 1 is padding. That is off by one, but the model was trained this way.
    """
    b, n = ids.shape
    keys = torch.cat([torch.ones(b, 1, dtype=torch.bool), ids != pad], dim=1)
    causal = torch.ones(n + 1, n + 1, dtype=torch.bool).tril()
    return (causal & keys.unsqueeze(1)).unsqueeze(1)
