"""What training minimises. Shapes: r restarts, b rows (the prompt alone and in its contexts), e embed_dim."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from softprompt.config import ObjectiveName

MIN_NORM = 1e-12  # as torch.nn.functional.normalize has it
TEMPERATURE = 0.07  # of the contrastive term; CLIP's own starting value (Radford et al. 2021)


def cosines(outputs: Tensor, directions: Tensor) -> Tensor:
    """(r, b) cosines of `outputs` (r, b, e) and `directions` (r, b, e), unit vectors. Gradients flow to `outputs`, once."""
    found: Tensor = _Cosines.apply(outputs, directions)
    return found


class _Cosines(torch.autograd.Function):
    """By hand: recorded by autograd, these few numbers took a tenth of a small step's time on a cpu."""

    @staticmethod
    def forward(ctx: Any, outputs: Tensor, directions: Tensor) -> Tensor:
        lengths = outputs.norm(dim=-1, keepdim=True).clamp_min_(MIN_NORM)
        unit = outputs / lengths
        found: Tensor = (unit * directions).sum(-1)
        ctx.save_for_backward(lengths, unit, directions, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        lengths, unit, directions, found = ctx.saved_tensors
        return (directions - found.unsqueeze(-1) * unit) * (gradient.unsqueeze(-1) / lengths), None


def row_losses(
    objective: ObjectiveName, outputs: Tensor, cosine: Tensor, targets: Tensor, others: Tensor | None
) -> Tensor:
    """(r, b) losses of `outputs` (r, b, e) against `targets` (r, b, e), neither of unit length, whose `cosine` (r, b) is known.

    cosine: 1 - cosine; mixed: the same, its pooled part. mse: squared error, in units of the target's mean square, so that 1 means
    nothing is right. contrastive: 1 - cosine, plus InfoNCE against `others` (m, e), unit vectors (van den Oord et al. 2018).
    """
    if objective == "mse":
        return (outputs - targets).square().mean(-1) / targets.square().mean(-1)
    if others is None:
        return 1 - cosine
    logits = torch.cat([cosine.unsqueeze(-1), F.normalize(outputs, dim=-1) @ others.T], dim=-1) / TEMPERATURE
    return 1 - cosine - logits.log_softmax(-1)[..., 0]
