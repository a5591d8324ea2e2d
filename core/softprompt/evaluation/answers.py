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
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import PackedBatch
from softprompt.encoders.causal_lm.question_rows import (
    SOFT,
    Ids,
    bare_row,
    common_start,
    hard_row,
    soft_row,
    template_digest,
    token_row,
)
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
    hard = [hard_row(model, question, prompt.text, placement) for question in questions]
    candidates = {
        "soft": [soft_row(model, question, k, placement) for question in questions],
        "no prompt": [bare_row(model, question, placement) for question in questions],
        "first tokens": [token_row(model, question, ids[:k], placement) for question in questions],
        "first sentence": [token_row(model, question, sentence, placement) for question in questions],
    }

    def on_pass(done: int) -> None:
        workspace.post_stage(f"grading: {done} of {len(questions)} questions")

    floors = _score(model, hard, candidates, answers, soft, on_pass)
    score = floors.pop("soft")
    shown = slice(SHOWN_QUESTIONS)
    compared = [candidates["soft"][shown], hard[shown], candidates["no prompt"][shown]]
    texts = greedy_answers(
        model, compared, soft, on_token=lambda _: workspace.post_stage("answering held-out questions")
    )
    samples = tuple(AnswerSample(*row) for row in zip(questions[shown], *texts, strict=True))
    return AnswerFidelity(placement, template_digest(model, placement), len(questions), score, floors, samples)


def _score(
    model: CausalLM,
    hard: Sequence[Ids],
    candidates: dict[str, list[Ids]],
    answers: Sequence[Sequence[Answer]],
    vectors: Tensor,
    on_pass: Callable[[int], object],
) -> dict[str, AnswerScore]:
    """Return the exact KL per token and the agreement of every candidate, over the teacher's answers."""
    sums = {name: torch.zeros(3, dtype=torch.float64) for name in candidates}
    for at in range(0, len(hard), QUESTIONS_PER_PASS):
        on_pass(at)
        part = slice(at, at + QUESTIONS_PER_PASS)
        teacher = _logits(model, hard[part], answers[part], vectors).log_softmax(-1)
        done: list[tuple[list[Ids], Tensor]] = []  # two candidates may be the same
        for name, rows in candidates.items():
            known = next((added for other, added in done if other == rows[part]), None)
            if known is None:
                logs = _logits(model, rows[part], answers[part], vectors).log_softmax(-1)
                divergence = (teacher.exp() * (teacher - logs)).sum()
                agreed = (teacher.argmax(-1) == logs.argmax(-1)).sum()
                known = torch.tensor([float(divergence), float(agreed), len(logs)], dtype=torch.float64)
                done.append((rows[part], known))
            sums[name] += known
    return {name: AnswerScore(float(total[0] / total[2]), float(total[1] / total[2])) for name, total in sums.items()}


def _logits(model: CausalLM, rows: Sequence[Ids], answers: Sequence[Sequence[Answer]], vectors: Tensor) -> Tensor:
    return PackedBatch(model, [packed_row(list(zip(rows, answers, strict=True)))]).logits(vectors.unsqueeze(0))


def greedy_answers(
    model: CausalLM,
    groups: Sequence[Sequence[Ids]],
    vectors: Tensor | None = None,
    max_tokens: int = SHOWN_TOKENS,
    on_token: Callable[[int], object] | None = None,
) -> list[list[str]]:
    """Return the most likely answer to each row of each group, as text. `vectors` (k, w) take the places of SOFT.

    The rows of a group should have a common start.
    """
    inputs = []
    for rows in groups:
        begin = common_start(rows)
        shared = _embed(model, rows[0][:begin], vectors)
        inputs += [(shared, _embed(model, row[begin:], vectors)) for row in rows]
    texts = [answer_text(model, each) for each in answer(model, inputs, max_tokens, on_token=on_token)]
    ends = [sum(map(len, groups[: i + 1])) for i in range(len(groups))]
    return [texts[end - len(rows) : end] for end, rows in zip(ends, groups, strict=True)]


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
            rows.append(
                hard_row(model, question, prompt, placement) if prompt else bare_row(model, question, placement)
            )
    (answers,) = greedy_answers(model, [rows], soft, max_tokens)
    right = [expected.lower() in text.lower() for (_, expected), text in zip(facts, answers, strict=True)]
    return sum(right) / len(right)
