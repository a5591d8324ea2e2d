"""Grade trained vectors: similarity alone, and composition fidelity in contexts not used in training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.encoders.clip.rows import ALONE, soft_rows
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import contexts_that_fit
from softprompt.objectives.pooled import encode_target
from softprompt.prompts.contexts import GRADING_CONTEXTS, check_context
from softprompt.prompts.results import ContextFidelity, ContextScore
from softprompt.prompts.soft_prompt import Array


@neutral_torch()
@torch.no_grad()
def grade(
    encoder: TextEncoder, prompt: HardPrompt, vectors: Tensor | Array, contexts: str | Sequence[str] = GRADING_CONTEXTS
) -> tuple[float, ContextFidelity | None]:
    """Measure soft tokens `vectors` (k, w) alone and in contexts.

    Returns:
        The similarity alone, and the fidelity in the contexts that have room for both the prompt and the soft tokens,
        or None if there are no such contexts.
    """
    vectors = torch.asarray(vectors, copy=True)
    contexts = (contexts,) if isinstance(contexts, str) else contexts
    for context in contexts:
        check_context(context)
    all_contexts = [ALONE, *contexts_that_fit(encoder, prompt, contexts, len(vectors))]
    targets = F.normalize(encode_target(encoder, prompt, all_contexts), dim=-1)
    embeddings = encoder.encode_rows(soft_rows(encoder, all_contexts, len(vectors)), vectors.to(encoder.device))
    similarities = (embeddings * targets).sum(-1).tolist()
    floors = (targets @ targets[0]).tolist()  # of the prompt without the context
    scores = [ContextScore(c, s, f) for c, s, f in zip(all_contexts, similarities, floors, strict=True)]
    return similarities[0], ContextFidelity(tuple(scores[1:])) if len(scores) > 1 else None
