"""The pooled outputs of a text tower and, written by hand, their gradient with respect to the embedded input.

On a cpu a small training step is mostly the dispatch of some hundred small operations. With the gradient written down, a block takes fewer of
them than autograd's record of its forward: a step of one prompt on `mini` takes .84 of the time, of one in the usual contexts .91, of 64
prompts .97. On other devices, and where torch lacks a kernel, autograd does the same. Shapes: b sequences, n positions, p before
them, w width, h heads, d = w / h, e embed_dim.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from softprompt.encoders.clip.transformer import (
    ACTIVATIONS,
    Block,
    KeysValues,
    Past,
    TextTransformer,
    TextTransformerConfig,
    joined,
)

aten = torch.ops.aten
# what F.scaled_dot_product_attention runs on a cpu; it has no public name
KERNELS = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward")
SMALL = 65_536  # numbers; of more, oneDNN is quicker
HAS_KERNELS = all(hasattr(aten, name) for name in KERNELS)


def pooled_outputs(
    tower: TextTransformer, x: Tensor, at: Tensor, mask: Tensor | None = None, past: Past | None = None
) -> Tensor:
    """As `Tower.outputs`, from which gradients flow to `x` (once: not the gradient of a gradient)."""
    if (
        HAS_KERNELS
        and x.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
    ):
        found: Tensor = _Outputs.apply(x, tower, at, mask, past)
        return found
    return tower.pooled_outputs(x, at, mask, past)


class _Outputs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, tower: TextTransformer, at: Tensor, mask: Tensor | None, past: Past | None
    ) -> Tensor:
        ctx.tower, ctx.shape = tower, x.shape
        b, n, w = x.shape
        ctx.ends = torch.arange(0, b * n, n) + at  # rows of x (b x n, w)
        x = x.reshape(b * n, w)
        ctx.blocks = []
        seen, ends = _added(mask), None
        for i, block in enumerate(tower.blocks):
            if i == len(tower.blocks) - 1:
                seen, ends = _added(tower.seen_at(at, n, mask)), ctx.ends
            x, kept = _forward(x, block, tower.config, b, seen, past[i] if past else None, ends)
            ctx.blocks.append(kept)
        x, *ctx.norm = layer_norm_forward(x, tower.norm_weight, tower.norm_bias, tower.config)
        return tower.project(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tower, config = ctx.tower, ctx.tower.config
        if tower.projection is not None:
            gradient = gradient @ tower.projection.t()
        gradient = layer_norm_backward(gradient, tower.norm_weight, tower.norm_bias, config, *ctx.norm)
        ends = ctx.ends
        for block, kept in zip(reversed(tower.blocks), reversed(ctx.blocks), strict=True):
            gradient = _backward(gradient, block, config, ctx.shape[0], kept, ends)
            ends = None
        return gradient.view(ctx.shape), None, None, None, None


class _Kept(NamedTuple):
    """What a block's backward needs of its forward: of each norm its input and statistics, of attention and the MLP what went into them."""

    norm1: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]
    causal: bool
    mask: Tensor | None
    norm2: tuple[Tensor, ...]
    inner: Tensor


def _added(mask: Tensor | None) -> Tensor | None:
    """A mask as the kernels take it: what is added to attention."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))


def _forward(
    x: Tensor,
    block: Block,
    config: TextTransformerConfig,
    b: int,
    mask: Tensor | None,
    past: KeysValues | None,
    ends: Tensor | None,
) -> tuple[Tensor, _Kept]:
    """One block over `x` (b x n, w), or with `ends` (b,) only these rows of it; see `tower.block_forward`."""
    w, h = config.width, config.heads
    normed, *norm1 = layer_norm_forward(x, block.norm1_weight, block.norm1_bias, config)
    if ends is None:
        qkv = torch.addmm(block.qkv_bias, normed, block.qkv_weight.t()).view(b, -1, 3, h, w // h).permute(2, 0, 3, 1, 4)
        q, kv = qkv[0], qkv[1:]
    else:
        q = (
            torch.addmm(block.qkv_bias[:w], normed[ends], block.qkv_weight[:w].t())
            .view(b, 1, h, w // h)
            .transpose(1, 2)
        )
        kv = (
            torch.addmm(block.qkv_bias[w:], normed, block.qkv_weight[w:].t())
            .view(b, -1, 2, h, w // h)
            .permute(2, 0, 3, 1, 4)
        )
        x = x[ends]
    k, v = kv if past is None else joined(past, kv)
    causal = config.causal and mask is None
    attended, sums = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, attn_mask=mask)
    y = torch.addmm(block.out_bias, attended.transpose(1, 2).reshape(-1, w), block.out_weight.t()).add_(x)
    normed, *norm2 = layer_norm_forward(y, block.norm2_weight, block.norm2_bias, config)
    inner = torch.addmm(block.fc_bias, normed, block.fc_weight.t())
    active = _transpose_small(ACTIVATIONS[config.activation](_transpose_small(inner)))
    out = torch.addmm(block.proj_bias, active, block.proj_weight.t()).add_(y)
    return out, _Kept(tuple(norm1), (q, k, v, attended, sums), causal, mask, tuple(norm2), inner)


def _backward(
    gradient: Tensor, block: Block, config: TextTransformerConfig, b: int, kept: _Kept, ends: Tensor | None
) -> Tensor:
    """From the `gradient` (b x n, w), or (b, w) with `ends`, of what `_forward` returned to that of its `x` (b x n, w)."""
    w, h = config.width, config.heads
    inner = _unactivated(gradient @ block.proj_weight, kept.inner, config)
    after = layer_norm_backward(
        inner @ block.fc_weight, block.norm2_weight, block.norm2_bias, config, *kept.norm2
    ).add_(gradient)
    attended = (after @ block.out_weight).view(b, -1, h, w // h).transpose(1, 2)
    slopes = aten._scaled_dot_product_flash_attention_for_cpu_backward(
        attended, *kept.attention, 0.0, kept.causal, attn_mask=kept.mask
    )
    dq, dk, dv = (part.transpose(1, 2) for part in slopes)
    n = len(kept.norm1[0]) // b
    if ends is None:
        normed = torch.stack([dq, dk[:, -n:], dv[:, -n:]], dim=2).view(-1, 3 * w) @ block.qkv_weight
        return layer_norm_backward(normed, block.norm1_weight, block.norm1_bias, config, *kept.norm1).add_(after)
    normed = torch.stack([dk[:, -n:], dv[:, -n:]], dim=2).view(-1, 2 * w) @ block.qkv_weight[w:]
    normed.index_add_(0, ends, dq.reshape(b, w) @ block.qkv_weight[:w])
    return layer_norm_backward(normed, block.norm1_weight, block.norm1_bias, config, *kept.norm1).index_add_(
        0, ends, after
    )


def layer_norm_forward(
    x: Tensor, weight: Tensor, bias: Tensor, config: TextTransformerConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The layer norm of `x` (…, w), and what `_unnormed` needs: x, its means and reciprocal deviations."""
    normed, mean, deviation = torch.native_layer_norm(x, [config.width], weight, bias, config.norm_eps)
    return normed, x, mean, deviation


def layer_norm_backward(
    gradient: Tensor,
    weight: Tensor,
    bias: Tensor,
    config: TextTransformerConfig,
    x: Tensor,
    mean: Tensor,
    deviation: Tensor,
) -> Tensor:
    wanted = [True, False, False]  # the input's gradient only
    found: Tensor = aten.native_layer_norm_backward(gradient, x, [config.width], mean, deviation, weight, bias, wanted)[
        0
    ]
    return found


def _unactivated(gradient: Tensor, inner: Tensor, config: TextTransformerConfig) -> Tensor:
    if config.activation == "quick_gelu":
        gate = torch.sigmoid(1.702 * inner)
        return gradient * gate * (1 + 1.702 * inner * (1 - gate))
    approximate = "tanh" if config.activation == "gelu_tanh" else "none"
    return _transpose_small(
        aten.gelu_backward(_transpose_small(gradient), _transpose_small(inner), approximate=approximate)
    )


def _transpose_small(inner: Tensor) -> Tensor:
    """A small `inner` transposed, and back again: a GELU that lies so is not handed to oneDNN, which takes 30 µs to begin."""
    return inner.t() if inner.numel() <= SMALL else inner
