"""The text tower: one functional forward for `mini` and for every text transformer of open_clip.

Shapes: b sequences, n positions, w width, h heads, e embed_dim. The weights are plain tensors without gradients, so that
autograd works back to the input embeddings and to nothing else. Source of the architecture: Radford et al. 2021 (CLIP);
its reference here is open_clip's TextTransformer, which the tests hold it against.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
Pooling = Literal["argmax", "eos", "first", "last", "cls"]

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


@dataclass(frozen=True)
class TextTransformerConfig:
    """What a text tower looks like; `pooling` says which position becomes the pooled embedding.

    argmax: the highest token id (CLIP's end token); eos: the first `end` token; first, last: that position of the padded
    context; cls: a learned embedding after the context (CoCa).
    """

    width: int
    heads: int
    layers: int
    context: int
    vocabulary: int
    embed_dim: int
    mlp_width: int
    activation: Activation = "gelu"
    causal: bool = True
    pooling: Pooling = "argmax"
    norm_eps: float = 1e-5

    @property
    def short(self) -> bool:
        """Whether the positions after the end token cannot matter, so that they need not be computed."""
        return self.causal and self.pooling in ("argmax", "eos", "first", "cls")


class Block(NamedTuple):
    """Weights of one pre-norm transformer block; qkv is (3w, w), in the order query, key, value."""

    norm1_weight: Tensor
    norm1_bias: Tensor
    qkv_weight: Tensor
    qkv_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor
    fc_weight: Tensor
    fc_bias: Tensor
    proj_weight: Tensor
    proj_bias: Tensor


@dataclass(frozen=True)
class TextTransformer:
    """Weights and their forward. table (vocabulary, w); positions (context [+ 1 with cls], w); projection (w, e)."""

    config: TextTransformerConfig
    table: Tensor
    positions: Tensor
    blocks: Sequence[Block]
    norm_weight: Tensor
    norm_bias: Tensor
    projection: Tensor | None
    projection_bias: Tensor | None = None
    cls: Tensor | None = None

    def to(self, device: torch.device, dtype: torch.dtype) -> TextTransformer:
        def move(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, dtype)

        moved: dict[str, Any] = {name: move(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        blocks = [Block(*map(move, block)) for block in self.blocks]
        return replace(self, blocks=blocks, **moved)

    @property
    def parameters(self) -> int:
        """How many numbers the tower has."""
        loose = [value for value in vars(self).values() if isinstance(value, Tensor)]
        return sum(tensor.numel() for tensor in [*loose, *(weight for block in self.blocks for weight in block)])

    def states(
        self, x: Tensor, mask: Tensor | None = None, layers: int | None = None, past: Past | None = None
    ) -> Tensor:
        """(b, n, w) hidden states after the first `layers` blocks (all of them by default), before the final norm.

        `x` (b, n, w) is embedded tokens with their positions added. `mask` (b, 1, n, n), True where attention may look, stands
        in for the causal one. With the `past` of p positions before them, which it must come with, the mask is (b, 1, n, p + n).
        """
        for i, block in enumerate(self.blocks[:layers]):
            x = block_forward(x, block, self.config, mask, past=past[i] if past else None)
        return x

    def past(self, x: Tensor) -> Past:
        """What positions `x` (b, p, w) at the beginning of a causal tower's context hand on to all that come after them.

        Each row's own positions must come first; what is computed for pads behind them is for a mask to leave out.
        """
        found = []
        for block in self.blocks:
            found.append(
                keys_values(F.layer_norm(x, (self.config.width,), *block[:2], self.config.norm_eps), block, self.config)
            )
            x = block_forward(x, block, self.config)
        return found

    def pooled_outputs(self, x: Tensor, at: Tensor, mask: Tensor | None = None, past: Past | None = None) -> Tensor:
        """(b, e) pooled embeddings, not yet of unit length, read at positions `at` (b,) of `x`. The others as for `states`."""
        return self.project(self.pooled(self.states(x, mask, len(self.blocks) - 1, past), at, mask, past))

    def pooled(self, before: Tensor, at: Tensor, mask: Tensor | None = None, past: Past | None = None) -> Tensor:
        """(b, w) normed states at positions `at`, from the states `before` the last block, which computes nothing else."""
        b, n, _ = before.shape
        ends = before[torch.arange(b, device=before.device), at].unsqueeze(1)
        last = past[-1] if past else None
        x = block_forward(before, self.blocks[-1], self.config, self.seen_at(at, n, mask), ends, last)
        return self.final_norm(x.squeeze(1))

    def seen_at(self, at: Tensor, n: int, mask: Tensor | None) -> Tensor | None:
        """(b, 1, 1, p + n) the part of `mask`, or of the causal one, that says what positions `at` (b,) see; None where they see all."""
        if mask is not None:
            return mask[torch.arange(len(at), device=at.device), :, at].unsqueeze(2)
        if self.config.causal:
            return (torch.arange(n, device=at.device) <= at.unsqueeze(1)).view(-1, 1, 1, n)
        return None

    def final_norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.config.width,), self.norm_weight, self.norm_bias, self.config.norm_eps)

    def project(self, x: Tensor) -> Tensor:
        """(…, w) normed states to (…, e), not yet of unit length."""
        if self.projection is None:
            return x
        x = x @ self.projection
        return x if self.projection_bias is None else x + self.projection_bias


KeysValues = Tensor  # (2, b, h, p, w / h): keys, values
Past = Sequence[KeysValues]  # of every block, for p positions that never change


def keys_values(normed: Tensor, block: Block, config: TextTransformerConfig) -> KeysValues:
    """What positions `normed` (b, n, w) are to attention."""
    b, n, w = normed.shape
    kv = F.linear(normed, block.qkv_weight[w:], block.qkv_bias[w:])
    return kv.view(b, n, 2, config.heads, w // config.heads).permute(2, 0, 3, 1, 4)


def joined(before: KeysValues, ours: KeysValues) -> KeysValues:
    """(2, r x b, h, p + n, d) of what stands before (2, b, h, p, d), which serves the rows of ours (2, r x b, h, n, d) in turn."""
    b = before.shape[1]
    ours = ours.view(2, -1, b, *ours.shape[2:])
    return torch.cat([before.unsqueeze(1).expand(-1, ours.shape[1], -1, -1, -1, -1), ours], dim=4).flatten(1, 2)


def block_forward(
    x: Tensor,
    block: Block,
    config: TextTransformerConfig,
    mask: Tensor | None = None,
    queries: Tensor | None = None,
    past: KeysValues | None = None,
) -> Tensor:
    """One block over `x` (b, n, w): attention, then the MLP, each on the normed input and added to it.

    With `queries` (b, m, w), only these positions are computed, and returned. Attention sees the p positions of `past` as well, whose
    rows serve those of `x` in turn where there are more of these.
    `mask` (b, 1, n or m, p + n) says what they see.
    """
    w, h = config.width, config.heads
    b, n = x.shape[:2]

    def norm(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(states, (w,), weight, bias, config.norm_eps)

    normed = norm(x, block.norm1_weight, block.norm1_bias)
    if queries is None:
        qkv = F.linear(normed, block.qkv_weight, block.qkv_bias).view(b, n, 3, h, w // h).permute(2, 0, 3, 1, 4)
        q, kv = qkv[0], qkv[1:]
        queries = x
    else:
        q = F.linear(norm(queries, block.norm1_weight, block.norm1_bias), block.qkv_weight[:w], block.qkv_bias[:w])
        q = q.view(b, -1, h, w // h).transpose(1, 2)
        kv = keys_values(normed, block, config)
    k, v = kv if past is None else joined(past, kv)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=config.causal and mask is None)
    x = queries + F.linear(attended.transpose(1, 2).reshape(b, -1, w), block.out_weight, block.out_bias)
    inner = F.linear(norm(x, block.norm2_weight, block.norm2_bias), block.fc_weight, block.fc_bias)
    return x + F.linear(ACTIVATIONS[config.activation](inner), block.proj_weight, block.proj_bias)
