"""Hidden-state similarity of soft tokens to their prompt."""

from __future__ import annotations

import torch
from torch import Tensor

from softprompt.encoders.clip.rows import ALONE, soft_rows
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hidden_states import HiddenStatesReference, supported_families
from softprompt.prompts.soft_prompt import Array


@neutral_torch()
@torch.no_grad()
def hidden_similarities(encoder: TextEncoder, prompt: HardPrompt, vectors: Tensor | Array) -> dict[str, float]:
    """Return the hidden-state similarity of `vectors` (k, w) to the prompt by family, or {} for a mix or chunks."""
    if len(prompt.chunks) != 1:
        return {}
    vectors = torch.asarray(vectors, copy=True).to(encoder.device)
    batch = encoder.batch_rows(soft_rows(encoder, [ALONE], len(vectors)))
    similarities = {}
    for family in supported_families(encoder):
        target = HiddenStatesReference(encoder, prompt, [ALONE], family)
        similarities[str(family)] = float(target.similarities(batch.read_states(vectors.unsqueeze(0), target.spec)))
    return similarities
