"""Step 4 of `mini`: how close the student is to the teacher on texts kept out of training.

    python core/mini/grade.py --teacher FOLDER [--work FOLDER] [--texts FILE]
"""

from __future__ import annotations

import torch
from torch import Tensor


def ranks(x: Tensor) -> Tensor:
    out = torch.empty(len(x), dtype=torch.float64)
    out[x.argsort()] = torch.arange(len(x), dtype=torch.float64)
    return out


def spearman(pooled: Tensor, wanted: Tensor) -> float:
    """Rank correlation of all pairs' similarities, student against teacher."""
    rows, columns = torch.triu_indices(len(pooled), len(pooled), 1)
    pairs = torch.stack([ranks((v @ v.T)[rows, columns]) for v in (pooled.float(), wanted.float())])
    return float(torch.corrcoef(pairs)[0, 1])


def figures(pooled: Tensor, wanted: Tensor) -> str:
    cosine = (pooled * wanted).sum(-1)
    return f"cosine {cosine.mean():.4f} spearman {spearman(pooled, wanted):.4f}"
