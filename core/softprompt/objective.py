"""What training minimises. Shapes: r restarts, b rows (the prompt alone and in its contexts), e embed_dim."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import Objective

TEMPERATURE = 0.07  # of the contrastive term; CLIP's own starting value (Radford et al. 2021)


def row_losses(objective: Objective, outputs: Tensor, targets: Tensor, others: Tensor | None) -> Tensor:
    """(r, b) losses of `outputs` (r, b, e) against `targets` (b, e), neither of unit length.

    cosine: 1 - cosine; mixed: the same, its pooled part. mse: squared error, in units of the target's mean square, so that 1 means
    nothing is right. contrastive: 1 - cosine, plus InfoNCE against `others` (m, e), unit vectors (van den Oord et al. 2018).
    """
    if objective == "mse":
        return (outputs - targets).square().mean(-1) / targets.square().mean(-1)
    unit = F.normalize(outputs, dim=-1)
    cosine = (unit * F.normalize(targets, dim=-1)).sum(-1)
    if others is None:
        return 1 - cosine
    logits = torch.cat([cosine.unsqueeze(-1), unit @ others.T], dim=-1) / TEMPERATURE
    return 1 - cosine - logits.log_softmax(-1)[..., 0]
