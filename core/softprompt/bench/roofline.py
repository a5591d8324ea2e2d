"""The limit: how long the matrix products of a step take where the machine does nothing else.

What is counted is fixed: the plain forward of start, k soft tokens and end through every layer, and the gradient back to the input. Work that is
skipped (positions that never change, all but one query of the last layer) does not lower the count, so that it tells in the ratio.
"""

from __future__ import annotations

from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip.transformer import TextTransformerConfig


def positions_of(config: TextTransformerConfig, specials: SpecialTokens, tokens: int) -> int:
    """How many positions a plain step computes: k + 2 for CLIP; all of them where what follows the end token matters."""
    if config.short and config.pooling != "cls":
        return tokens + len(specials.start) + len(specials.end)
    return config.context + (config.pooling == "cls")


def step_flops(config: TextTransformerConfig, positions: int, batch: int = 1) -> float:
    """Multiplications and additions of the matrix products of one step, two for every product of two numbers.

    The weights are frozen, so that each of their products has one on the way back; a product of attention, between two things that both
    depend on the input, has two. Attention is counted whole, as if nothing were masked, and nothing is computed twice.
    """
    n, w = positions, config.width
    weights = (
        config.layers * n * (4 * w * w + 2 * w * config.mlp_width) + w * config.embed_dim
    )  # the last: one position projected
    attention = config.layers * 2 * n * n * w
    return 2.0 * batch * (2 * weights + 3 * attention)
