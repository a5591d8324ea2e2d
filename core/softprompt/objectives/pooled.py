"""What a soft prompt is trained towards: the pooled embeddings of the hard prompt, alone and inside contexts.

Several hard prompts with shares mean together the weighted mean of their unit embeddings, in every context: a mix.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.rows import rows_in
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.base import HardPrompt


def targets_in(encoder: TextEncoder, prompt: HardPrompt, contexts: Sequence[str]) -> Tensor:
    """(b, e) what the encoder makes of the hard prompt in each context, not of unit length; for one in pieces, their mean.

    Of variants it is the weighted mean of their directions, as long as they are on the average.
    """
    return targets_of(encoder, [(prompt, contexts)])[0]


def targets_of(encoder: TextEncoder, wanted: Sequence[tuple[HardPrompt, Sequence[str]]]) -> list[Tensor]:
    """As `targets_in`, of several hard prompts and each one's contexts in one pass: for short prompts that is many times quicker."""
    rows = [row for prompt, contexts in wanted for context in contexts for row in rows_in(encoder, context, prompt.pieces)]
    outputs = encoder.encode_rows(rows, unit=False)
    found, at = [], 0
    for prompt, contexts in wanted:
        end = at + len(contexts) * len(prompt.pieces)
        each = outputs[at:end].view(len(contexts), len(prompt.pieces), encoder.config.embed_dim)
        found.append(_weighted(each, prompt) if prompt.variants else each.mean(1))
        at = end
    return found


def _weighted(each: Tensor, prompt: HardPrompt) -> Tensor:
    """(b, e) of the outputs (b, pieces of all variants, e)."""
    parts = each.split_with_sizes([len(one.pieces) for _, one in prompt.variants], dim=1)
    means = [(share, part.mean(1)) for (share, _), part in zip(prompt.variants, parts, strict=True)]
    mean = torch.stack([share * F.normalize(output, dim=-1) for share, output in means]).sum(0)
    length = torch.stack([share * output.norm(dim=-1, keepdim=True) for share, output in means]).sum(0)
    return F.normalize(mean, dim=-1) * length
