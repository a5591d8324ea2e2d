"""Losses of pooled embeddings.

Shapes: R rows, b contexts (the prompt alone first), e embed_dim, q negatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from softprompt.config import ObjectiveName

MIN_NORM = 1e-12  # the value that torch.nn.functional.normalize uses
TEMPERATURE = 0.07  # of the contrastive loss; CLIP's initial value (Radford et al. 2021)


def cosines(outputs: Tensor, directions: Tensor) -> Tensor:
    """Return the cosines (R, b) between `outputs` (R, b, e) and the unit vectors `directions` (R, b, e).

    Only first-order gradients flow, and only to `outputs`.
    """
    similarities: Tensor = _Cosines.apply(outputs, directions)
    return similarities


class _Cosines(torch.autograd.Function):
    """Cosines with a hand-written gradient: with autograd they took a tenth of a small step on a CPU."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, directions: Tensor) -> Tensor:
        norms = outputs.norm(dim=-1, keepdim=True).clamp_min_(MIN_NORM)
        unit = outputs / norms
        similarities: Tensor = (unit * directions).sum(-1)
        ctx.save_for_backward(norms, unit, directions, similarities)
        return similarities

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        norms, unit, directions, similarities = ctx.saved_tensors
        return (directions - similarities.unsqueeze(-1) * unit) * (gradient.unsqueeze(-1) / norms), None


def row_losses(
    objective: ObjectiveName, outputs: Tensor, cosine: Tensor, targets: Tensor, negatives: Tensor | None
) -> Tensor:
    """Return the losses (R, b) of pooled embeddings.

    - "cosine", and the pooled part of "mixed": 1 - `cosine`.
    - "mse": mean squared error divided by the target's mean square, so that zeros have loss 1.
    - "contrastive": 1 - `cosine`, plus InfoNCE against the negatives (van den Oord et al. 2018).

    Args:
        outputs: (R, b, e), not normalized.
        cosine: (R, b) between outputs and targets.
        targets: (R, b, e), not normalized.
        negatives: (q, e) unit vectors for the contrastive loss, or None for other losses.
    """
    if objective == "mse":
        return (outputs - targets).square().mean(-1) / targets.square().mean(-1)
    if negatives is None:
        return 1 - cosine
    logits = torch.cat([cosine.unsqueeze(-1), F.normalize(outputs, dim=-1) @ negatives.T], dim=-1) / TEMPERATURE
    return 1 - cosine - logits.log_softmax(-1)[..., 0]
