"""Prompts as rows of token ids, and batches of them made ready once: padded, embedded, with pooling positions and masks.

A prompt is a *row*: a list of token ids without start and end, in which -1, -2, … stand for soft tokens 0, 1, … So
`[v1][v2] on a hill` is [-1, -2, 525, 320, 3965]. Shapes: r sets of soft tokens, k soft tokens, w width, b rows,
n positions, m positions of a row's own, e embed_dim.
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
from softprompt.prompts.contexts import SLOT, split_context
from softprompt.text_states import HiddenStateSpec

ALONE = SLOT  # the context with nothing around
MAX_CONTEXTS = 256  # whose tokens are kept
_known_contexts: WeakKeyDictionary[PromptTokenizer, dict[str, tuple[list[int], list[int]]]] = WeakKeyDictionary()
AT_THE_END: tuple[Pooling, ...] = ("argmax", "eos")  # towers that are pooled at the end token


def rows_in_context(model: FrozenModel, context: str, inside: Sequence[Row]) -> list[list[int]]:
    """The context's tokens around each of these rows; the context "{}" is nothing around."""
    before, after = _around(model.tokenizer, context)
    return [[*before, *row, *after] for row in inside]


def _around(tokenizer: PromptTokenizer, context: str) -> tuple[list[int], list[int]]:
    """The context's tokens before and after what stands in it. Kept: one training asks 115 times for the same 30 contexts."""
    known = _known_contexts.setdefault(tokenizer, {})
    if context not in known:
        if len(known) >= MAX_CONTEXTS:
            known.clear()
        before, after = (encode_prompt(tokenizer, words) if words else [] for words in split_context(context))
        known[context] = before, after
    return known[context]


def soft_rows(model: FrozenModel, contexts: Sequence[str], tokens: int) -> list[list[int]]:
    """One row a context, with soft tokens 0 to `tokens` - 1 inside."""
    slots = [-1 - i for i in range(tokens)]
    return [row for context in contexts for row in rows_in_context(model, context, [slots])]


def contexts_with_room(model: FrozenModel, contexts: Sequence[str], tokens: int) -> list[str]:
    """Those contexts in which so many tokens fit."""
    return [
        context
        for context in contexts
        if len(rows_in_context(model, context, [[0] * tokens])[0]) <= model.max_prompt_tokens
    ]


class PaddedRows(NamedTuple):
    """Rows with start, end and padding around them, on the cpu.

    ids (b, n), negative where a soft token stands; at (b,) where open_clip reads the pooled embedding; mask
    (b, 1, n + 1, n + 1) or None; words (b, m) which of the positions behind the start tokens are a row's own, and no
    end or pad.
    """

    ids: Tensor
    at: Tensor
    mask: Tensor | None
    words: Tensor


def pad_rows(tower: TextTransformer, specials: SpecialTokens, rows: Sequence[Row]) -> PaddedRows:
    """Pad rows as open_clip does: to the tower's context, or to the longest where the tower allows shorter ones."""
    config = tower.config
    full = [[*specials.start, *row, *specials.end] for row in rows]
    longest = max(map(len, full))
    if config.pooling == "cls":
        # open_clip masks each key by the token before it, so the first pad is seen and must be there
        longest = min(longest + 1, config.context)
    n = longest if config.short else config.context
    ids = torch.tensor([[*row, *[specials.pad] * (n - len(row))] for row in full])
    words = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows]).unsqueeze(1)
    mask = cls_mask(ids, specials.pad) if config.pooling == "cls" else None
    return PaddedRows(ids, pooled_position(ids, tower, specials), mask, words)


class TokenBatch:
    """Rows with their constant part embedded; `outputs` and `read` put soft tokens in and run the tower."""

    def __init__(self, tower: TextTransformer, specials: SpecialTokens, rows: Sequence[Row]) -> None:
        device = tower.table.device
        ids, at, mask, words = pad_rows(tower, specials, rows)
        self.tower, self.first = tower, len(specials.start)
        soft = ids < 0
        hard = (~soft).unsqueeze(-1).to(device)
        self.x = tower.table[ids.clamp(min=0).to(device)] * hard + tower.positions[: ids.shape[1]]
        if tower.cls is not None:
            last = (tower.cls + tower.positions[tower.config.context]).expand(len(rows), 1, -1)
            self.x = torch.cat([self.x, last], dim=1)
        self.at, self.words = at.to(device), words.to(device)
        self.mask = None if mask is None else mask.to(device)
        self.slots = soft.nonzero().to(device)  # (number of slots, 2): row and position
        self.which = (-1 - ids[soft]).to(device)  # which soft token stands there

    def _fill(self, soft: Tensor | None) -> tuple[Tensor, int]:
        """(r x b, n, w) embedded rows with their soft tokens in place, and r."""
        if soft is None:
            return self.x, 1
        r = soft.shape[0]
        x = self.x.expand(r, *self.x.shape)
        if len(self.which):
            rows, positions = self.slots.T
            # a product with ones and zeros: the gradient of an index that repeats is summed in no fixed order
            chosen = F.one_hot(self.which, soft.shape[1]).to(x.dtype) @ soft.to(x.dtype)
            there = (torch.arange(r, device=x.device).unsqueeze(1), rows, positions)
            x = x.index_put(there, chosen + self.x[rows, positions])
        return x.flatten(0, 1), r

    def outputs(self, soft: Tensor | None = None) -> Tensor:
        """(r, b, e) in float32 for `soft` (r, k, w), not of unit length; gradients flow to `soft`."""
        x, r = self._fill(soft)
        mask = None if self.mask is None else self.mask.repeat(r, 1, 1, 1)
        return pooled_outputs(self.tower, x, self.at.repeat(r), mask).float().view(r, len(self.words), -1)

    def read(self, soft: Tensor | None, reads: HiddenStateSpec) -> EncoderOutput:
        """`outputs`, and what a family of diffusion models `reads` beside them, in one pass that computes no more than that.

        `soft` (r, k, w) as for `outputs`; gradients flow to it.
        """
        x, r = self._fill(soft)
        mask = None if self.mask is None else self.mask.repeat(r, 1, 1, 1)
        return read_states(self.tower, x, self.at.repeat(r), mask, reads, (r, len(self.words)), self.words, self.first)


class EncoderOutput(NamedTuple):
    """outputs (r, b, e) as of `Frame.outputs`; states (r, b, m, w), of which `words` (b, m) or (r, b, m) says which are a row's own.

    Start, end and pads are left out. A family that reads one vector has one state, at the end token.
    """

    outputs: Tensor
    states: Tensor
    words: Tensor


def read_states(
    tower: TextTransformer,
    x: Tensor,
    at: Tensor,
    mask: Tensor | None,
    reads: HiddenStateSpec,
    shape: tuple[int, int],
    words: Tensor,
    first: int,
) -> EncoderOutput:
    """What a family `reads` of embedded rows `x` (r x b, n, w), `shape` being (r, b), whose own positions begin at `first`."""
    (r, b), m = shape, words.shape[-1]
    states = tower.states(x, mask, len(tower.blocks) - 1)
    if reads.last and not reads.pooled:
        states = block_forward(states, tower.blocks[-1], tower.config, mask)
        pooled = tower.final_norm(states[torch.arange(r * b, device=at.device), at])
    else:
        pooled = tower.pooled(states, at, mask)
    outputs = tower.project(pooled).float().view(r, b, -1)
    if reads.pooled:
        if tower.config.pooling not in AT_THE_END:
            end = first + words.sum(-1)  # the end token stands right behind a row's own
            pooled = tower.pooled(states, end.expand(r, b).flatten(), mask)
        return EncoderOutput(outputs, pooled.float().view(r, b, 1, -1), torch.ones_like(words[..., :1]))
    states = states[:, first : first + m]
    states = tower.final_norm(states) if reads.normed else states
    return EncoderOutput(outputs, states.float().reshape(r, b, m, -1), words)


def pooled_position(ids: Tensor, tower: TextTransformer, specials: SpecialTokens) -> Tensor:
    """(b,) where open_clip reads the pooled embedding of each row of ids (b, n); text may hold an end token of its own."""
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
    """(b, 1, n + 1, n + 1) causal mask of CoCa, whose padding mask is shifted by one position, as its weights were trained."""
    b, n = ids.shape
    keys = torch.cat([torch.ones(b, 1, dtype=torch.bool), ids != pad], dim=1)
    causal = torch.ones(n + 1, n + 1, dtype=torch.bool).tril()
    return (causal & keys.unsqueeze(1)).unsqueeze(1)
