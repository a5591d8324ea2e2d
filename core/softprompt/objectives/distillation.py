"""Distillation: train soft tokens until a language model answers as it does with the hard prompt in place.

The loss is the KL divergence, per token, from the model with the hard prompt to the model with the soft tokens, over
answers that the model itself has sampled with the hard prompt. Sources: BE tokens (arXiv 2511.23271) and Cartridges
(arXiv 2506.06266).

Shapes: R rows, one per restart of every slot; S scored positions of all rows; k soft tokens, w width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from softprompt.config import LongPromptPolicy, TrainConfig
from softprompt.encoders.base import check_token_count, encode_prompt
from softprompt.encoders.causal_lm.answering import Answer
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import PackedBatch, PackedRow
from softprompt.encoders.causal_lm.question_rows import Ids, common_start, soft_row
from softprompt.errors import ConfigError, ModelRefused, check_text, empty_prompt, option, prompt_too_long
from softprompt.objectives.base import Evaluation, HardPrompt, SlotTarget
from softprompt.objectives.self_study import write_questions
from softprompt.objectives.teacher import ANSWER_TOKENS, sample_teacher
from softprompt.objectives.workspace import NO_WORKSPACE, Workspace
from softprompt.prompts.lineage import WeightedText
from softprompt.prompts.questions import load_questions, split_questions

QUESTIONS_PER_STEP = 4
ANSWERS_PER_QUESTION = 4
MAX_TRAINING_QUESTIONS = 96  # of the built-in list: sampling their answers takes as long as 20-40 steps
TYPICAL_QUESTION = 20  # tokens, with the template around it
REST_FLOOR = 1e-6  # the smallest probability of all tokens that the teacher does not keep
SAVED_WIDTHS_PER_POSITION = 60  # upper bound: what a block saves per position for its backward pass


@dataclass(frozen=True)
class DistillationTarget:
    """The questions of one run and the teacher's answers, grouped by turn."""

    turns: tuple[tuple[tuple[str, tuple[Answer, ...]], ...], ...]
    skipped: tuple[str, ...] = ()


class DistillationObjective:
    """The objective "distill". Implements `Objective`; its methods are documented there.

    Args:
        tokens: the token counts that occur in the batch.

    Raises:
        ConfigError: the largest count does not fit into the model's context length.
        ModelRefused: the model has no usable chat template.
    """

    similarity_varies = True

    def __init__(
        self, model: CausalLM, config: TrainConfig, tokens: Sequence[int], workspace: Workspace = NO_WORKSPACE
    ) -> None:
        self.model, self.config, self.workspace = model, config, workspace
        self.tokens = max(tokens)
        check_token_count(model, self.tokens)
        self.questions, _ = training_questions(config)
        _check_self_study(model, config)
        self.batches: list[PackedBatch] = []
        self.teachers: list[tuple[Tensor, Tensor]] = []  # of each turn: ids and log-probabilities, (S, top)

    @property
    def turns(self) -> int:
        count = len(self.questions) + self.config.self_study
        return -(-count // QUESTIONS_PER_STEP)

    @property
    def positions(self) -> int:
        longest = max(len(soft_row(self.model, question, 0, self.config.placement)) for question in self.questions)
        return self.tokens + QUESTIONS_PER_STEP * (longest + ANSWERS_PER_QUESTION * ANSWER_TOKENS)

    @property
    def row_bytes(self) -> int:
        states = SAVED_WIDTHS_PER_POSITION * self.model.width * self.model.layers * self.model.dtype.itemsize
        scored = QUESTIONS_PER_STEP * ANSWERS_PER_QUESTION * ANSWER_TOKENS
        return self.positions * states + 3 * scored * self.model.vocabulary * 4

    def tokenize(self, text: str, meanings: Sequence[WeightedText], long: LongPromptPolicy) -> HardPrompt:
        return tokenize_prompt(self.model, text, meanings, long)

    def prepare(self, prompts: Sequence[tuple[HardPrompt, TrainConfig, str]]) -> list[DistillationTarget]:
        targets = []
        for prompt, config, run in prompts:
            questions = [*self.questions]
            if config.self_study:
                questions += write_questions(
                    self.model, prompt.text, config.self_study, config.seed, run=run, workspace=self.workspace
                )
            answers = sample_teacher(
                self.model, prompt.text, questions, ANSWERS_PER_QUESTION, config.placement, config.seed,
                label="training", run=run, workspace=self.workspace,
            )  # fmt: skip
            asked = [(question, tuple(group)) for question, group in zip(questions, answers, strict=True)]
            size = QUESTIONS_PER_STEP
            targets.append(DistillationTarget(tuple(tuple(asked[at : at + size]) for at in range(0, len(asked), size))))
        return targets

    def set_slots(self, slots: Sequence[SlotTarget]) -> None:
        self.batches, self.teachers = [], []
        device = self.model.device
        for turn in range(self.turns):
            rows: list[PackedRow] = []
            answers: list[Answer] = []
            for slot in slots:
                asked = slot.target.turns[turn]
                row = packed_row([(soft_row(self.model, q, slot.tokens, self.config.placement), a) for q, a in asked])
                rows += [row] * slot.rows
                answers += [each for _, group in asked for each in group] * slot.rows
            self.batches.append(PackedBatch(self.model, rows))
            self.teachers.append(
                (
                    torch.cat([each.top_ids for each in answers]).to(device),
                    torch.cat([each.top_logs for each in answers]).to(device),
                )
            )

    def evaluate(self, vectors: Tensor, turn: int) -> Evaluation:
        batch, (top_ids, top_logs) = self.batches[turn], self.teachers[turn]
        logits = batch.logits(vectors)
        divergence = top_divergence(logits, top_ids, top_logs)
        agreement = (logits.argmax(-1) == top_ids[:, 0]).float()
        loss, agreed = (mean_by_row(values, batch.scored_rows, len(vectors)) for values in (divergence, agreement))
        return Evaluation(loss, agreed.detach(), agreed.detach())


def typical_positions(tokens: int) -> int:
    """Return the positions of one row with this many soft tokens and questions of ordinary length."""
    return tokens + QUESTIONS_PER_STEP * (TYPICAL_QUESTION + ANSWERS_PER_QUESTION * ANSWER_TOKENS)


def training_questions(config: TrainConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the questions to train on and those to grade on. Raises ConfigError if there are too few."""
    training, held_out = split_questions(config.questions or load_questions())
    return training if config.questions else training[:MAX_TRAINING_QUESTIONS], held_out


def _check_self_study(model: CausalLM, config: TrainConfig) -> None:
    """Raise ConfigError if the model cannot be asked to write questions, because it has no chat template."""
    if config.self_study and config.placement == "start":
        try:
            model.chat_template  # noqa: B018
        except ModelRefused as error:
            raise ConfigError(
                f"{model.name} has no chat template that can be used, so it cannot be asked to write questions. "
                f"Leave out {option('self_study')}, or write some for {option('questions', 'FILE')}."
            ) from error


def packed_row(asked: Sequence[tuple[Ids, Sequence[Answer]]]) -> PackedRow:
    """Return a packed row of questions with their answers. What the questions share at their start comes once."""
    row = PackedRow()
    begin = common_start([ids for ids, _ in asked])
    root = row.add(asked[0][0][:begin])
    for ids, answers in asked:
        question = row.add(ids[begin:], root)
        for each in answers:
            row.add_answer(each.ids, question)
    return row


def top_divergence(logits: Tensor, top_ids: Tensor, top_logs: Tensor) -> Tensor:
    """Return a lower bound (S,) of the KL divergence from the teacher to `logits` (S, v).

    The tokens that the teacher does not keep count as a single token.
    """
    logs = logits.gather(-1, top_ids) - logits.logsumexp(-1, keepdim=True)
    rest = (1 - logs.exp().sum(-1)).clamp(min=REST_FLOOR).log()
    teacher = top_logs.exp()
    teacher_rest = (1 - teacher.sum(-1)).clamp(min=REST_FLOOR)
    return (teacher * (top_logs - logs)).sum(-1) + teacher_rest * (teacher_rest.log() - rest)


def mean_by_row(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """Return the mean (R,) of the values (S,) of each row."""
    sums = values.new_zeros(count).index_add(0, rows, values)
    return sums / torch.bincount(rows, minlength=count).clamp(min=1)


def tokenize_prompt(
    model: CausalLM, text: str, meanings: Sequence[WeightedText] = (), long: LongPromptPolicy = "refuse"
) -> HardPrompt:
    """Tokenize a hard prompt for a language model.

    Raises:
        ConfigError: it is a mix of several texts.
        PromptError: it is empty or contains a special token.
        PromptTooLong: it does not fit, and `long` is "refuse".
    """
    if meanings:
        raise ConfigError(
            f"the prompt is a mix of {len(meanings)} texts, but {model.name} is a language model, which reads one "
            "text. Write one prompt that says everything."
        )
    text = check_text("prompt", text)
    ids = encode_prompt(model.tokenizer, text)
    if not ids:
        raise empty_prompt()
    room = model.max_prompt_tokens
    if len(ids) <= room:
        return HardPrompt(text, (tuple(ids),))
    dropped = model.tokenizer.decode(ids[room:]).strip()
    if long == "refuse":
        raise prompt_too_long(len(ids), model.name, room, dropped)
    return HardPrompt(model.tokenizer.decode(ids[:room]), (tuple(ids[:room]),), dropped)
