"""The example language model, smollm2-q4, as `softprompt-tui models pull smollm2-q4` has put it on disk.

All other tests use random models, which are small but say nothing. These show that a real model learns.
"""

from __future__ import annotations

import pytest
import torch

from softprompt.config import config_for
from softprompt.encoders.catalog import resolve
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.question_rows import bare_row
from softprompt.evaluation.answers import greedy_answers
from softprompt.training.trainer import train

WEIGHTS = resolve("smollm2-q4").weights_path  # before a fixture gives the tests a home of their own
PROMPT = (
    "You are a gruff old sailor who hates the sea. Answer every question in one short sentence full of salt and tar, "
    "call everyone lad, and end with a warning about the weather."
)
QUESTIONS = (
    "Who are you?", "What is the capital of France?", "How do I boil an egg?", "What should I wear tomorrow?",
    "Can you help me with my homework?", "Why is the sky blue?", "What is your favorite food?", "How old are you?",
    "Where can I buy a boat?", "What is two plus two?", "Do you like music?", "How do I sleep better?",
)  # fmt: skip

pytestmark = pytest.mark.skipif(WEIGHTS is None, reason="run `softprompt-tui models pull smollm2-q4`")


@pytest.fixture(scope="module")
def smollm2() -> CausalLM:
    assert WEIGHTS is not None
    return load_causal_lm(WEIGHTS.parent, "cpu")


def test_the_weights_are_those_that_entries_name(smollm2: CausalLM) -> None:
    assert smollm2.fingerprint == "771c4609d5f4de6c"


def test_greedy_answers_are_those_of_transformers(smollm2: CausalLM) -> None:
    rows = [bare_row(smollm2, question, "system") for question in QUESTIONS[:2]]
    (answers,) = greedy_answers(smollm2, [rows], max_tokens=8)
    for row, answer in zip(rows, answers, strict=True):
        ids = torch.tensor([row])
        output = smollm2._model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8,
            eos_token_id=list(smollm2.specials.end), pad_token_id=smollm2.specials.pad,
        )  # fmt: skip
        assert answer == smollm2.tokenizer.decode(
            [token for token in output[0, len(row) :].tolist() if token not in smollm2.specials.end]
        ).strip()  # fmt: skip


def test_soft_tokens_learn_what_the_prompt_does(smollm2: CausalLM) -> None:
    config = config_for("causal", {"tokens": 4, "steps": 6, "questions": QUESTIONS})
    result = train(smollm2, PROMPT, config)
    assert result.answers is not None
    floors = result.answers.floors
    assert result.answers.score.kl < 0.7 * floors["no prompt"].kl
    assert result.answers.score.kl < floors["first tokens"].kl
    assert result.losses[-1] < 0.6 * result.losses[0]
