"""The limit: the time of a step's matrix products on a machine that does nothing else.

The count is fixed: the plain forward pass of start, k soft tokens and end through every layer, and the gradient back to
the input. An optimization that skips work (positions that never change, all but one query of the last layer) does not
lower the count, so it shows in the ratio.
"""

from __future__ import annotations

from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip.transformer import TextTransformerConfig


def count_positions(config: TextTransformerConfig, specials: SpecialTokens, tokens: int) -> int:
    """Return the positions of a plain step: k + 2 for CLIP, or all if positions after the end token matter."""
    if config.ignores_padding and config.pooling != "cls":
        return tokens + len(specials.start) + len(specials.end)
    return config.context + (config.pooling == "cls")


def step_flops(config: TextTransformerConfig, positions: int, batch: int = 1) -> float:
    """Return the floating-point operations of one step's matrix products: 2 per multiply-add.

    The weights are frozen, so each product with weights needs one product in the backward pass. Both factors of an
    attention product depend on the input, so each needs two. Attention counts in full, as if unmasked, and nothing is
    recomputed.
    """
    n, w = positions, config.width
    weights = (
        config.layers * n * (4 * w * w + 2 * w * config.mlp_width) + w * config.embed_dim
    )  # the projection of one position
    attention = config.layers * 2 * n * n * w
    return 2.0 * batch * (2 * weights + 3 * attention)
