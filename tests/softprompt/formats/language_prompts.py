"""Soft prompts for language models, with random vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from softprompt import SoftPrompt
from softprompt.config import Placement
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import template_digest
from softprompt.prompts.results import AnswerFidelity, AnswerScore
from tests.library_model import a_prompt


def make_prompt(
    model: CausalLM, placement: Placement = "system", name: str = "pirate", tokens: int = 3, **changes: Any
) -> SoftPrompt:
    vectors = np.random.default_rng(0).normal(0, model.token_std, (tokens, model.width)).astype(np.float32)
    answers = AnswerFidelity(placement, template_digest(model, placement), 4, AnswerScore(0.5, 0.7), {})
    values = {
        "name": name, "vectors": vectors, "model": model.name, "model_fingerprint": model.fingerprint,
        "target": np.empty(0, np.float32), "composition": None, "hard_prompt": "You are a pirate.", "answers": answers,
    }  # fmt: skip
    return a_prompt(**values | changes)
