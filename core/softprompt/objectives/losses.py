"""Losses of pooled embeddings.

Shapes: R rows, b contexts (the prompt alone first), e embed_dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from softprompt.config import ObjectiveName

MIN_NORM = 1e-12  # as in torch.nn.functional.normalize
TEMPERATURE = 0.07  # of the contrastive loss; CLIP's initial value (Radford et al. 2021)


def cosines(outputs: Tensor, directions: Tensor) -> Tensor:
    """Return the cosines (R, b) of `outputs` (R, b, e) with unit vectors `directions` (R, b, e).

    `outputs` gets first-order gradients only.
    """
    similarities: Tensor = _Cosines.apply(outputs, directions)
    return similarities


class _Cosines(torch.autograd.Function):
    """A hand-written gradient: with autograd, the cosines took a tenth of a small step on a CPU."""

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

    cosine, and the pooled part of mixed: 1 - cosine.
    mse: mean squared error over the target's mean square, so that an output of zeros has loss 1.
    contrastive: 1 - cosine plus InfoNCE against the negatives (van den Oord et al. 2018).

    Args:
        outputs: (R, b, e), not normalized.
        cosine: (R, b) of outputs and targets.
        targets: (R, b, e), not normalized.
        negatives: (m, e) unit vectors of the contrastive loss, else None.
    """
    if objective == "mse":
        return (outputs - targets).square().mean(-1) / targets.square().mean(-1)
    if negatives is None:
        return 1 - cosine
    logits = torch.cat([cosine.unsqueeze(-1), F.normalize(outputs, dim=-1) @ negatives.T], dim=-1) / TEMPERATURE
    return 1 - cosine - logits.log_softmax(-1)[..., 0]
