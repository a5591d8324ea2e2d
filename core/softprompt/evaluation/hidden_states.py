"""Hidden-state similarity of soft tokens to their hard prompt, by program."""

from __future__ import annotations

import torch
from torch import Tensor

from softprompt.encoders.clip.rows import ALONE, soft_rows
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hidden_states import HiddenTarget, measured_families
from softprompt.prompts.soft_prompt import Array


@torch.no_grad()
def hidden_similarities(encoder: TextEncoder, prompt: HardPrompt, vectors: Tensor | Array) -> dict[str, float]:
    """Hidden-state similarity of soft tokens `vectors` (k, w) alone to the hard prompt, by family; {} for one of several texts."""
    if len(prompt.pieces) != 1:
        return {}
    vectors = torch.asarray(vectors, copy=True).to(encoder.device)
    frame = encoder.batch_rows(soft_rows(encoder, [ALONE], len(vectors)))
    found = {}
    for family in measured_families(encoder):
        target = HiddenTarget(encoder, prompt, [ALONE], family)
        found[str(family)] = float(target.similarities(frame.read(vectors.unsqueeze(0), target.reads)))
    return found
