"""Grade soft tokens that are tuned on examples: the loss and the right answers on examples that training has not seen.

Every figure stands beside the same figure for alternatives: the soft tokens before training, a few-shot prompt made of
the same training examples, and no prompt.

Shapes: k soft tokens, w width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.config import TrainConfig
from softprompt.encoders.causal_lm.answering import BATCH_ANSWERS
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import PackedBatch
from softprompt.encoders.causal_lm.question_rows import Ids, bare_row, hard_row, template_digest
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.errors import shorten
from softprompt.evaluation.answers import greedy_answers
from softprompt.objectives.examples import (
    ANSWER_MARGIN,
    EncodedExample,
    ExamplePrompt,
    encode_examples,
    group_examples,
    pack_outputs,
    position_weights,
    shuffled,
)
from softprompt.objectives.workspace import NO_WORKSPACE, Workspace
from softprompt.prompts.examples import Example
from softprompt.prompts.results import ExampleFidelity, ExampleSample, ExampleScore
from softprompt.prompts.soft_prompt import Array

SHOWN_EXAMPLES = 12  # of the held-out ones, whose answers are kept
MAX_SHOWN_LENGTH = 200  # characters of a text that is kept
MAX_SHOT_TOKENS = 4096  # of the few-shot prompt: its attention mask grows with the square
PASS_EXAMPLES, PASS_TOKENS = 32, 1024  # examples in a forward pass, and their tokens without what they share


@neutral_torch()
@torch.no_grad()
def grade_examples(
    model: CausalLM,
    prompt: ExamplePrompt,
    vectors: Tensor | Array,
    untrained: Tensor | Array,
    config: TrainConfig,
    *,
    workspace: Workspace = NO_WORKSPACE,
) -> ExampleFidelity:
    """Grade soft tokens `vectors` (k, w) on the held-out examples.

    Args:
        untrained: (k, w) the soft tokens before training.
        config: the settings of the training.
    """
    examples, placement, k = prompt.examples, config.placement, len(vectors)
    held_out = examples.held_out.examples
    soft, start = (torch.asarray(each, copy=True).to(model.device, torch.float32) for each in (vectors, untrained))
    encoded = encode_examples(model, held_out, k, placement)
    workspace.post_stage("grading the soft prompt")
    soft_rows = [example.row(k) for example in encoded]
    bare_rows = [bare_row(model, example.input, placement) for example in held_out]
    training = shuffled(examples.training.examples, config.seed)
    shots, shot_rows = few_shot_rows(model, training, held_out, encoded, config)
    score, soft_texts = _grade(model, soft_rows, encoded, held_out, workspace, "the soft prompt", soft)
    before, _ = _grade(model, soft_rows, encoded, held_out, workspace, "the soft prompt before training", start)
    few_shot, shot_texts = _grade(model, shot_rows, encoded, held_out, workspace, "the few-shot prompt")
    none, bare_texts = _grade(model, bare_rows, encoded, held_out, workspace, "the model without a prompt")
    samples = tuple(
        ExampleSample(*(shorten(text, MAX_SHOWN_LENGTH) for text in (example.input, example.output, *texts)))
        for example, *texts in zip(held_out[:SHOWN_EXAMPLES], soft_texts, shot_texts, bare_texts, strict=False)
    )
    return ExampleFidelity(
        placement, template_digest(model, placement), examples.training.source, examples.held_out.source, shots, score,
        {"untrained": before, "few-shot": few_shot, "no prompt": none}, samples,
    )  # fmt: skip


def few_shot_rows(
    model: CausalLM,
    training: Sequence[Example],
    held_out: Sequence[Example],
    encoded: Sequence[EncodedExample],
    config: TrainConfig,
) -> tuple[int, list[Ids]]:
    """Return the rows of the held-out inputs behind a few-shot prompt, and the number of examples in it.

    The prompt stands where the soft tokens would stand. It begins with the instruction, if given, and has as many
    training examples as fit into the model and into MAX_SHOT_TOKENS.
    """
    room = min(model.window - max(example.length for example in encoded) - ANSWER_MARGIN, MAX_SHOT_TOKENS)
    texts = [shot_text(example) for example in training]
    used = accumulate(len(model.tokenizer.encode(f"{text}\n\n")) for text in (config.instruction, *texts))
    fitting = max(0, sum(tokens <= room for tokens in used) - 1)
    for shots in range(fitting, -1, -1):  # joined texts can have more tokens than alone
        prompt = "\n\n".join([*filter(None, [config.instruction.strip()]), *texts[:shots]])
        rows = [shot_row(model, example, prompt, config) for example in held_out]
        lengths = (len(row) + len(each.output) for row, each in zip(rows, encoded, strict=True))
        if max(lengths) + ANSWER_MARGIN <= model.window:
            return shots, rows
    return 0, [bare_row(model, example.input, config.placement) for example in held_out]


def shot_row(model: CausalLM, example: Example, prompt: str, config: TrainConfig) -> Ids:
    """Return the row of an input behind a few-shot prompt, which may be empty."""
    question, placement = shot_question(example), config.placement
    return hard_row(model, question, prompt, placement) if prompt else bare_row(model, question, placement)


def shot_text(example: Example) -> str:
    """Return an example as a part of the few-shot prompt."""
    return f"{shot_question(example)} {example.output}"


def shot_question(example: Example) -> str:
    """Return an input in the form of the few-shot prompt, which ends where the output begins."""
    return f"Input: {example.input}\nOutput:"


def _grade(
    model: CausalLM,
    rows: Sequence[Ids],
    encoded: Sequence[EncodedExample],
    examples: Sequence[Example],
    workspace: Workspace,
    label: str,
    vectors: Tensor | None = None,
) -> tuple[ExampleScore, list[str]]:
    """Return the score of rows whose answers should be the outputs, and these answers."""
    workspace.post_stage(f"grading {label}")
    loss = _mean_loss(model, rows, encoded, vectors)
    answers = [""] * len(rows)
    for batch, most in _answer_batches(model, rows, encoded):
        (texts,) = greedy_answers(
            model, [[rows[index] for index in batch]], vectors, most,
            on_token=lambda _done: workspace.post_stage(f"grading {label}"),
        )  # fmt: skip
        for index, text in zip(batch, texts, strict=True):
            answers[index] = text
    right = sum(answer == example.output for answer, example in zip(answers, examples, strict=True))
    return ExampleScore(loss, right / len(rows)), answers


def _answer_batches(
    model: CausalLM, rows: Sequence[Ids], encoded: Sequence[EncodedExample]
) -> Iterator[tuple[list[int], int]]:
    """Yield the indices of rows to answer together, and the largest number of tokens of their answers.

    Answers of similar length come together, because a batch runs until its longest answer ends. In every batch, the
    longest answer fits behind the longest row.
    """
    batch: list[int] = []
    longest = most = 0
    for index in sorted(range(len(rows)), key=lambda index: len(encoded[index].output)):
        length, limit = len(rows[index]), len(encoded[index].output) + ANSWER_MARGIN
        if batch and (len(batch) == BATCH_ANSWERS or max(longest, length) + limit > model.window):
            yield batch, most
            batch, longest = [], 0
        batch.append(index)
        longest, most = max(longest, length), limit
    yield batch, most


def _mean_loss(
    model: CausalLM, rows: Sequence[Ids], encoded: Sequence[EncodedExample], vectors: Tensor | None
) -> float:
    """Return the cross-entropy per token, averaged over the examples."""
    total, at = 0.0, 0
    for group in group_examples(encoded, PASS_EXAMPLES, PASS_TOKENS):
        packed = pack_outputs(rows[at : at + len(group)], [example.output for example in group])
        logits = PackedBatch(model, [packed]).logits(None if vectors is None else vectors.unsqueeze(0))
        outputs = torch.tensor([token for example in group for token in example.output], device=model.device)
        losses = F.cross_entropy(logits, outputs, reduction="none") * position_weights(group).to(model.device)
        total += float(losses.sum()) * len(group)
        at += len(group)
    return total / len(encoded)
