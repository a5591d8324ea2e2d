"""The text tower: one functional forward pass for `mini` and for open_clip's text transformers.

The weights are plain tensors without gradients, so autograd computes only the gradients of the input embeddings.
Architecture: Radford et al. 2021 (CLIP). The tests compare it with open_clip's TextTransformer.

Shapes: b sequences, n positions, p positions of a cached prefix, w width, h heads, e embed_dim.
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
    """The shape of a text tower.

    `pooling` selects the position of the pooled embedding:

    - "argmax": the highest token id, which is CLIP's end token.
    - "eos": the first end token.
    - "first", "last": the first or last position after padding to the context length.
    - "cls": a learned embedding after all other positions (CoCa).
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
    def ignores_padding(self) -> bool:
        """Whether positions after the end token cannot change the pooled embedding, so they need not be computed."""
        return self.causal and self.pooling in ("argmax", "eos", "first", "cls")


class Block(NamedTuple):
    """The weights of a pre-norm transformer block. qkv_weight (3w, w) stacks query, key and value."""

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
    """The weights of a text tower and its forward pass.

    Shapes: table (vocabulary, w), positions (context, w) or, with cls, (context + 1, w), projection (w, e).
    """

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
    def parameter_count(self) -> int:
        """Number of parameters."""
        tensors = [value for value in vars(self).values() if isinstance(value, Tensor)]
        return sum(tensor.numel() for tensor in [*tensors, *(weight for block in self.blocks for weight in block)])

    def states(
        self, x: Tensor, mask: Tensor | None = None, layers: int | None = None, past: Past | None = None
    ) -> Tensor:
        """Return the hidden states (b, n, w) after the first `layers` blocks (all by default), before the final norm.

        Args:
            x: (b, n, w) token embeddings with position embeddings added.
            mask: (b, 1, n, n), true where attention is allowed, or a bias that is added to the attention scores. It
                replaces the causal mask. With `past`, a mask (b, 1, n, p + n) is required.
            past: keys and values of a prefix of p positions, from `compute_past`.
        """
        for i, block in enumerate(self.blocks[:layers]):
            x = block_forward(x, block, self.config, mask, past=past[i] if past else None)
        return x

    def compute_past(self, x: Tensor) -> Past:
        """Return every block's keys and values for a prefix `x` (b, p, w) of a causal tower's input.

        Any padding must be at the end of the prefix, and later masks must exclude it.
        """
        past = []
        for block in self.blocks:
            past.append(
                keys_values(F.layer_norm(x, (self.config.width,), *block[:2], self.config.norm_eps), block, self.config)
            )
            x = block_forward(x, block, self.config)
        return past

    def pooled_outputs(
        self, x: Tensor, pooled_at: Tensor, mask: Tensor | None = None, past: Past | None = None
    ) -> Tensor:
        """Return the pooled embeddings (b, e) at `pooled_at` (b,), not normalized. Other arguments as in `states`."""
        return self.project(self.pooled(self.states(x, mask, len(self.blocks) - 1, past), pooled_at, mask, past))

    def pooled(self, states: Tensor, pooled_at: Tensor, mask: Tensor | None = None, past: Past | None = None) -> Tensor:
        """Run the last block on its input states (b, n, w), only at `pooled_at` (b,). Return normed states (b, w)."""
        b, n, _ = states.shape
        queries = states[torch.arange(b, device=states.device), pooled_at].unsqueeze(1)
        last = past[-1] if past else None
        x = block_forward(states, self.blocks[-1], self.config, self.mask_at(pooled_at, n, mask), queries, last)
        return self.final_norm(x.squeeze(1))

    def mask_at(self, pooled_at: Tensor, n: int, mask: Tensor | None) -> Tensor | None:
        """Return the rows (b, 1, 1, p + n) of `mask` or the causal mask at `pooled_at` (b,), or None without a mask."""
        if mask is not None:
            return mask[torch.arange(len(pooled_at), device=pooled_at.device), :, pooled_at].unsqueeze(2)
        if self.config.causal:
            return (torch.arange(n, device=pooled_at.device) <= pooled_at.unsqueeze(1)).view(-1, 1, 1, n)
        return None

    def final_norm(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, (self.config.width,), self.norm_weight, self.norm_bias, self.config.norm_eps)

    def project(self, x: Tensor) -> Tensor:
        """Project normed states (…, w) to embeddings (…, e) that are not normalized."""
        if self.projection is None:
            return x
        x = x @ self.projection
        return x if self.projection_bias is None else x + self.projection_bias


KeysValues = Tensor  # (2, b, h, p, w / h): keys and values
Past = Sequence[KeysValues]  # one per block, for a prefix of p positions


def keys_values(normed: Tensor, block: Block, config: TextTransformerConfig) -> KeysValues:
    """Return the keys and values of normed states (b, n, w)."""
    b, n, w = normed.shape
    kv = F.linear(normed, block.qkv_weight[w:], block.qkv_bias[w:])
    return kv.view(b, n, 2, config.heads, w // config.heads).permute(2, 0, 3, 1, 4)


def join_past(past: KeysValues, kv: KeysValues) -> KeysValues:
    """Prepend `past` (2, b, h, p, d), repeated r times, to keys and values (2, r x b, h, n, d)."""
    b = past.shape[1]
    kv = kv.view(2, -1, b, *kv.shape[2:])
    return torch.cat([past.unsqueeze(1).expand(-1, kv.shape[1], -1, -1, -1, -1), kv], dim=4).flatten(1, 2)


def block_forward(
    x: Tensor,
    block: Block,
    config: TextTransformerConfig,
    mask: Tensor | None = None,
    queries: Tensor | None = None,
    past: KeysValues | None = None,
) -> Tensor:
    """Run one pre-norm block on `x` (b, n, w): attention, then the MLP, each with a residual connection.

    Args:
        mask: (b, 1, n, p + n), or (b, 1, m, p + n) with queries; replaces the causal mask.
        queries: (b, m, w) input states of the positions to compute and return; all positions by default.
        past: keys and values of a prefix, which attention can also see. Its rows repeat if there are fewer than b.
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
    k, v = kv if past is None else join_past(past, kv)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=config.causal and mask is None)
    x = queries + F.linear(attended.transpose(1, 2).reshape(b, -1, w), block.out_weight, block.out_bias)
    inner = F.linear(norm(x, block.norm2_weight, block.norm2_bias), block.fc_weight, block.fc_bias)
    return x + F.linear(ACTIVATIONS[config.activation](inner), block.proj_weight, block.proj_bias)
