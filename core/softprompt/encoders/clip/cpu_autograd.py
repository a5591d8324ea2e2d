"""A faster backward pass of the text tower for small batches on a CPU.

On a CPU, a small training step spends most of its time dispatching hundreds of small operations. This hand-written
gradient of the pooled outputs dispatches fewer than autograd does. Measured on `mini`, a step with one prompt takes
0.84 of the time, one prompt in the usual contexts 0.91, and 64 prompts 0.97. Autograd is used on other devices, or if
torch lacks a kernel.

Shapes: b sequences, n positions, p positions of a cached prefix, w width, h heads, d = w / h, e embed_dim.
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
    join_past,
)

aten = torch.ops.aten
# F.scaled_dot_product_attention calls these on a CPU; they have no public names
KERNEL_NAMES = ("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention_for_cpu_backward")
MAX_TRANSPOSED_NUMEL = 65_536  # oneDNN is faster for larger tensors
HAS_KERNELS = all(hasattr(aten, name) for name in KERNEL_NAMES)


def pooled_outputs(
    tower: TextTransformer, x: Tensor, pooled_at: Tensor, mask: Tensor | None = None, past: Past | None = None
) -> Tensor:
    """Return the same as `TextTransformer.pooled_outputs`. On a CPU, only first-order gradients flow to `x`."""
    if (
        HAS_KERNELS
        and x.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
    ):
        outputs: Tensor = _PooledOutputs.apply(x, tower, pooled_at, mask, past)
        return outputs
    return tower.pooled_outputs(x, pooled_at, mask, past)


class _PooledOutputs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, tower: TextTransformer, pooled_at: Tensor, mask: Tensor | None, past: Past | None
    ) -> Tensor:
        ctx.tower, ctx.shape = tower, x.shape
        b, n, w = x.shape
        ctx.ends = torch.arange(0, b * n, n) + pooled_at  # rows of x (b x n, w)
        x = x.reshape(b * n, w)
        ctx.blocks = []
        bias, ends = _as_bias(mask), None
        for i, block in enumerate(tower.blocks):
            if i == len(tower.blocks) - 1:
                bias, ends = _as_bias(tower.mask_at(pooled_at, n, mask)), ctx.ends
            x, saved = _block_forward(x, block, tower.config, b, bias, past[i] if past else None, ends)
            ctx.blocks.append(saved)
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
        for block, saved in zip(reversed(tower.blocks), reversed(ctx.blocks), strict=True):
            gradient = _block_backward(gradient, block, config, ctx.shape[0], saved, ends)
            ends = None
        return gradient.view(ctx.shape), None, None, None, None


class _SavedTensors(NamedTuple):
    """Tensors for a block's backward pass: inputs and statistics of both norms, and inputs of attention and GELU."""

    norm1: tuple[Tensor, ...]
    attention: tuple[Tensor, ...]
    causal: bool
    mask: Tensor | None
    norm2: tuple[Tensor, ...]
    inner: Tensor


def _as_bias(mask: Tensor | None) -> Tensor | None:
    """Return a mask in the form that the kernels need: a bias for the attention scores."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))


def _block_forward(
    x: Tensor,
    block: Block,
    config: TextTransformerConfig,
    b: int,
    mask: Tensor | None,
    past: KeysValues | None,
    ends: Tensor | None,
) -> tuple[Tensor, _SavedTensors]:
    """Do the same as `transformer.block_forward` on `x` (b x n, w). With `ends` (b,), compute only these rows."""
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
    k, v = kv if past is None else join_past(past, kv)
    causal = config.causal and mask is None
    attended, sums = aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, attn_mask=mask)
    y = torch.addmm(block.out_bias, attended.transpose(1, 2).reshape(-1, w), block.out_weight.t()).add_(x)
    normed, *norm2 = layer_norm_forward(y, block.norm2_weight, block.norm2_bias, config)
    inner = torch.addmm(block.fc_bias, normed, block.fc_weight.t())
    active = _transpose_small(ACTIVATIONS[config.activation](_transpose_small(inner)))
    out = torch.addmm(block.proj_bias, active, block.proj_weight.t()).add_(y)
    return out, _SavedTensors(tuple(norm1), (q, k, v, attended, sums), causal, mask, tuple(norm2), inner)


def _block_backward(
    gradient: Tensor, block: Block, config: TextTransformerConfig, b: int, saved: _SavedTensors, ends: Tensor | None
) -> Tensor:
    """Return the gradient (b x n, w) of a block's input from that of its output: (b x n, w), or (b, w) with `ends`."""
    w, h = config.width, config.heads
    inner = _activation_backward(gradient @ block.proj_weight, saved.inner, config)
    after = layer_norm_backward(
        inner @ block.fc_weight, block.norm2_weight, block.norm2_bias, config, *saved.norm2
    ).add_(gradient)
    attended = (after @ block.out_weight).view(b, -1, h, w // h).transpose(1, 2)
    gradients = aten._scaled_dot_product_flash_attention_for_cpu_backward(
        attended, *saved.attention, 0.0, saved.causal, attn_mask=saved.mask
    )
    dq, dk, dv = (part.transpose(1, 2) for part in gradients)
    n = len(saved.norm1[0]) // b
    if ends is None:
        normed = torch.stack([dq, dk[:, -n:], dv[:, -n:]], dim=2).view(-1, 3 * w) @ block.qkv_weight
        return layer_norm_backward(normed, block.norm1_weight, block.norm1_bias, config, *saved.norm1).add_(after)
    normed = torch.stack([dk[:, -n:], dv[:, -n:]], dim=2).view(-1, 2 * w) @ block.qkv_weight[w:]
    normed.index_add_(0, ends, dq.reshape(b, w) @ block.qkv_weight[:w])
    return layer_norm_backward(normed, block.norm1_weight, block.norm1_bias, config, *saved.norm1).index_add_(
        0, ends, after
    )


def layer_norm_forward(
    x: Tensor, weight: Tensor, bias: Tensor, config: TextTransformerConfig
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the layer norm of `x` (…, w), and what its backward needs: `x`, its means and reciprocal deviations."""
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
    output_mask = [True, False, False]  # the gradient of the input only
    gradient_of_x: Tensor = aten.native_layer_norm_backward(
        gradient, x, [config.width], mean, deviation, weight, bias, output_mask
    )[0]
    return gradient_of_x


def _activation_backward(gradient: Tensor, inner: Tensor, config: TextTransformerConfig) -> Tensor:
    if config.activation == "quick_gelu":
        gate = torch.sigmoid(1.702 * inner)
        return gradient * gate * (1 + 1.702 * inner * (1 - gate))
    approximate = "tanh" if config.activation == "gelu_tanh" else "none"
    return _transpose_small(
        aten.gelu_backward(_transpose_small(gradient), _transpose_small(inner), approximate=approximate)
    )


def _transpose_small(inner: Tensor) -> Tensor:
    """Transpose a small tensor, or transpose it back. A transposed GELU avoids oneDNN, whose calls cost 30 µs."""
    return inner.t() if inner.numel() <= MAX_TRANSPOSED_NUMEL else inner
