"""How good trained vectors are: similarity alone, and composition fidelity in contexts that they were not trained in."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.rows import ALONE, soft_rows
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import contexts_that_fit
from softprompt.objectives.pooled import encode_targets_in
from softprompt.prompts.contexts import GRADING_CONTEXTS, check_context
from softprompt.prompts.results import ContextFidelity, ContextScore
from softprompt.prompts.soft_prompt import Array


@torch.no_grad()
def grade(
    encoder: TextEncoder, prompt: HardPrompt, vectors: Tensor | Array, contexts: str | Sequence[str] = GRADING_CONTEXTS
) -> tuple[float, ContextFidelity | None]:
    """(similarity alone, composition over those contexts in which both the prompt and `vectors` (k, w) fit)."""
    vectors = torch.asarray(vectors, copy=True)
    contexts = (contexts,) if isinstance(contexts, str) else contexts
    for context in contexts:
        check_context(context)
    around = [ALONE, *contexts_that_fit(encoder, prompt, contexts, len(vectors))]
    targets = F.normalize(encode_targets_in(encoder, prompt, around), dim=-1)
    ours = encoder.encode_rows(soft_rows(encoder, around, len(vectors)), vectors.to(encoder.device))
    similarities = (ours * targets).sum(-1).tolist()
    floors = (targets @ targets[0]).tolist()  # the hard prompt without the added words
    grades = [ContextScore(c, s, f) for c, s, f in zip(around, similarities, floors, strict=True)]
    return similarities[0], ContextFidelity(tuple(grades[1:])) if len(grades) > 1 else None
