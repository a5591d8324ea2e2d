"""Grade soft tokens of a language model by its answers: divergence, agreement, and the answers themselves.

All questions are held out: training has not seen them. Every figure stands beside the same figure for cheap
alternatives: no prompt, the prompt's first tokens, and its first sentence cut to as many tokens.

Shapes: k soft tokens, w width, v vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from softprompt.config import Placement, TrainConfig
from softprompt.encoders.causal_lm.answering import Answer, answer
from softprompt.encoders.causal_lm.chat_rows import Ids, bare_row, common_start, hard_row, soft_row, token_row
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import SOFT, PackedBatch
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.distillation import packed_row, training_questions
from softprompt.objectives.teacher import sample_teacher
from softprompt.objectives.workspace import NO_WORKSPACE, Workspace
from softprompt.prompts.results import AnswerFidelity, AnswerSample, AnswerScore
from softprompt.prompts.soft_prompt import Array

GRADED_QUESTIONS = 24  # with one sampled answer each
SHOWN_QUESTIONS = 12  # of these, answered at length with the soft tokens, the hard prompt and neither
SHOWN_TOKENS = 24
HELD_OUT_SEED = 1 << 32  # added to the run's seed
QUESTIONS_PER_PASS = 8
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|\n")


@neutral_torch()
@torch.no_grad()
def grade_answers(
    model: CausalLM,
    prompt: HardPrompt,
    vectors: Tensor | Array,
    config: TrainConfig,
    *,
    questions: Sequence[str] = (),
    run: str = "",
    workspace: Workspace = NO_WORKSPACE,
) -> AnswerFidelity:
    """Compare the answers with soft tokens `vectors` (k, w) to those with the hard prompt.

    Args:
        config: the settings of the training: where the tokens stand, and which questions are held out.
        questions: held-out questions to use instead of the first GRADED_QUESTIONS.
        run: the key of the run whose workspace has the teacher's answers.
    """
    questions = questions or training_questions(config)[1][:GRADED_QUESTIONS]
    placement, k = config.placement, len(vectors)
    soft = torch.asarray(vectors, copy=True).to(model.device, torch.float32)
    # different random numbers than in training, so that a question in both lists has other answers
    seed = (config.seed + HELD_OUT_SEED) % (1 << 63)
    answers = sample_teacher(
        model, prompt.text, questions, 1, placement, seed, label="grading", run=run, workspace=workspace
    )
    ids = [token for chunk in prompt.chunks for token in chunk]
    sentence = model.tokenizer.encode(_SENTENCE_END.split(prompt.text.strip())[0])[:k]
    alternatives = {
        "no prompt": [bare_row(model, question) for question in questions],
        "first tokens": [token_row(model, question, ids[:k], placement) for question in questions],
        "first sentence": [token_row(model, question, sentence, placement) for question in questions],
    }
    workspace.post_stage("grading the soft prompt")
    hard = [hard_row(model, question, prompt.text, placement) for question in questions]
    soft_rows = [soft_row(model, question, k, placement) for question in questions]
    score = _score(model, hard, soft_rows, answers, soft)
    floors = {}
    for name, rows in alternatives.items():
        workspace.post_stage(f"grading the floor: {name}")
        floors[name] = _score(model, hard, rows, answers)

    def on_token(_done: int) -> None:
        workspace.post_stage("answering held-out questions")

    shown = slice(SHOWN_QUESTIONS)
    texts = [
        [answer_text(model, each) for each in greedy_answers(model, rows[shown], given, on_token=on_token)]
        for rows, given in ((soft_rows, soft), (hard, None), (alternatives["no prompt"], None))
    ]
    samples = tuple(AnswerSample(*row) for row in zip(questions[shown], *texts, strict=True))
    return AnswerFidelity(placement, model.chat_template.digest, len(questions), score, floors, samples)


def _score(
    model: CausalLM,
    hard: Sequence[Ids],
    rows: Sequence[Ids],
    answers: Sequence[Sequence[Answer]],
    vectors: Tensor | None = None,
) -> AnswerScore:
    """Return the exact KL per token, and the agreement of the most likely tokens, over the teacher's answers."""
    divergence = agreed = total = 0.0
    for at in range(0, len(rows), QUESTIONS_PER_PASS):
        part = slice(at, at + QUESTIONS_PER_PASS)
        teacher = _logits(model, hard[part], answers[part]).log_softmax(-1)
        logs = _logits(model, rows[part], answers[part], vectors).log_softmax(-1)
        divergence += float((teacher.exp() * (teacher - logs)).sum())
        agreed += float((teacher.argmax(-1) == logs.argmax(-1)).sum())
        total += len(logs)
    return AnswerScore(divergence / total, agreed / total)


def _logits(
    model: CausalLM, rows: Sequence[Ids], answers: Sequence[Sequence[Answer]], vectors: Tensor | None = None
) -> Tensor:
    batch = PackedBatch(model, [packed_row(list(zip(rows, answers, strict=True)))])
    return batch.logits(None if vectors is None else vectors.unsqueeze(0))


def greedy_answers(
    model: CausalLM,
    rows: Sequence[Ids],
    vectors: Tensor | None = None,
    max_tokens: int = SHOWN_TOKENS,
    on_token: Callable[[int], object] | None = None,
) -> list[Answer]:
    """Return the most likely answer to each row. `vectors` (k, w) take the places of SOFT."""
    begin = common_start(rows)
    shared = _embed(model, rows[0][:begin], vectors)
    endings = [_embed(model, row[begin:], vectors) for row in rows]
    return answer(model, shared, endings, max_tokens, on_token=on_token)


def _embed(model: CausalLM, ids: Sequence[int], vectors: Tensor | None) -> Tensor:
    """Return the embeddings (T, w) of ids. `vectors` (k, w) take the places of SOFT, which are all in one row."""
    soft = [at for at, token in enumerate(ids) if token == SOFT]
    embeddings = model.embed([0 if token == SOFT else token for token in ids]).reshape(-1, model.width)
    if soft and vectors is not None:
        embeddings[soft] = vectors.to(embeddings)
    return embeddings


def answer_text(model: CausalLM, each: Answer) -> str:
    """Return the text of an answer, without its end token."""
    ids = each.ids[:-1] if each.ids and each.ids[-1] in model.specials.end else each.ids
    return model.tokenizer.decode(ids).strip()


@neutral_torch()
@torch.no_grad()
def fact_share(
    model: CausalLM,
    facts: Sequence[tuple[str, str]],
    *,
    prompt: str = "",
    vectors: Tensor | Array | None = None,
    placement: Placement = "system",
    max_tokens: int = SHOWN_TOKENS,
) -> float:
    """Return the share of questions whose most likely answer contains the expected string, ignoring case.

    Args:
        facts: (question, expected string) pairs.
        prompt: the hard prompt, or "" for none.
        vectors: (k, w) soft tokens to use instead.
    """
    soft = None if vectors is None else torch.asarray(vectors, copy=True).to(model.device, torch.float32)
    rows = []
    for question, _ in facts:
        if soft is not None:
            rows.append(soft_row(model, question, len(soft), placement))
        else:
            rows.append(hard_row(model, question, prompt, placement) if prompt else bare_row(model, question))
    answers = greedy_answers(model, rows, soft, max_tokens)
    right = [
        expected.lower() in answer_text(model, each).lower() for (_, expected), each in zip(facts, answers, strict=True)
    ]
    return sum(right) / len(right)
