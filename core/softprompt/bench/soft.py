"""Measure soft prompts by token count: similarity alone, composition fidelity, and two soft prompts in one sentence."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import permutations
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.bench.environment import BenchEnvironment
from softprompt.bench.results import COPY, DEFAULT, OURS, TUNED, WARM, PairRow, SoftRow
from softprompt.bench.textual_inversion import train_for_steps
from softprompt.config import TrainConfig
from softprompt.encoders.base import Row
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import SoftPromptError
from softprompt.evaluation.fidelity import grade
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.prompts.results import ContextFidelity
from softprompt.training.model_kinds import make_objective
from softprompt.training.scheduler import train_scheduled
from softprompt.training.task import TrainingTask

PAIR_TOKENS, PAIR_COUNT = 3, 40
# the words around two soft prompts; no content word among them occurs in a training context
PAIR_SENTENCES = (
    ("", "in front of", ""),
    ("", "in the style of", ""),
    ("a mosaic showing", "above", ""),
    ("", "and", ", soft evening light"),
    ("a tapestry with", "between", "and a river"),
)


def measure_soft(environment: BenchEnvironment) -> Iterator[SoftRow | PairRow]:
    """Yield a SoftRow per method for each token count, and one PairRow.

    All methods take the same number of steps, and all but the warm start begin from the same vectors.
    """
    encoder, plan, notify = environment.encoder, environment.plan, environment.notify
    for tokens in plan.soft_tokens:
        texts = environment.select_texts(tokens, plan.count)
        if not texts:
            continue
        default = TrainConfig(tokens=tokens)
        alone = replace(default, contexts=())
        methods: dict[str, Callable[[], list[Tensor]]] = {
            DEFAULT: partial(_train, encoder, texts, default),
            WARM: partial(_train, encoder, texts, replace(default, init="prompt")),
            OURS: partial(_train, encoder, texts, alone),
            TUNED: partial(_train_inversion, environment, texts, alone),
        }
        copies = _grade_all(encoder, texts, [encoder.embed(encoder.tokenizer.encode(text)[:tokens]) for text in texts])
        for method in plan.soft_methods:
            notify(f"soft quality: {len(texts)} prompts, {tokens} tokens, {method}")
            vectors = methods[method]()
            yield _summarize(method, tokens, _grade_all(encoder, texts, vectors), copies)
            if tokens == PAIR_TOKENS and method == DEFAULT and len(texts) > 1:
                yield _measure_pairs(encoder, texts, vectors, method)
        yield _summarize(COPY, tokens, copies, copies)


Grades = list[tuple[float, ContextFidelity | None]]


def _train(encoder: TextEncoder, texts: Sequence[str], config: TrainConfig) -> list[Tensor]:
    """Return the vectors (k, w) of each text."""
    vectors: dict[str, Tensor] = {}
    for task, slot in train_scheduled(
        encoder, partial(make_objective, encoder), [TrainingTask(text, config) for text in texts]
    ):
        if isinstance(slot, SoftPromptError):
            raise slot
        vectors[task.text] = slot.vectors
    return [vectors[text] for text in texts]


def _train_inversion(environment: BenchEnvironment, texts: list[str], config: TrainConfig) -> list[Tensor]:
    return list(train_for_steps(environment.encoder, texts, config, environment.tuned_rate))


def _grade_all(encoder: TextEncoder, texts: Sequence[str], vectors: Sequence[Tensor]) -> Grades:
    return [
        grade(encoder, tokenize_prompt(encoder, text), text_vectors)
        for text, text_vectors in zip(texts, vectors, strict=True)
    ]


def _summarize(method: str, tokens: int, grades: Grades, copies: Grades) -> SoftRow:
    similarities = [similarity for similarity, _ in grades]
    compositions = [composition for _, composition in grades if composition]
    fidelities = [score.similarity for composition in compositions for score in composition.contexts] or [1.0]
    return SoftRow(
        method=method,
        tokens=tokens,
        count=len(grades),
        similarity=mean(similarities),
        similarity_worst=min(similarities),
        fidelity=mean(fidelities),
        fidelity_worst=min(fidelities),
        fidelity_decile=mean_of_worst_tenth(fidelities),
        floor=mean(composition.floor for composition in compositions) if compositions else 1.0,
        copy=mean(similarity for similarity, _ in copies),
        copy_fidelity=mean([composition.mean for _, composition in copies if composition] or [1.0]),
    )


def mean_of_worst_tenth(values: Sequence[float]) -> float:
    """Return the mean of the lowest tenth of the values, or the lowest value if there are few."""
    return mean(sorted(values)[: max(1, round(len(values) / 10))])


@torch.no_grad()
def _measure_pairs(encoder: TextEncoder, texts: list[str], vectors: list[Tensor], method: str) -> PairRow:
    pairs = list(permutations(range(len(texts)), 2))
    random.Random(0).shuffle(pairs)
    ids = [encoder.tokenizer.encode(text) for text in texts]
    fidelities: list[float] = []
    floors: list[float] = []
    for i, (a, b) in enumerate(pairs):
        around = [
            encoder.tokenizer.encode(words) if words else []
            for words in PAIR_SENTENCES[len(fidelities) % len(PAIR_SENTENCES)]
        ]
        reference = _build_sentence(around, ids[a], ids[b])
        if len(reference) > encoder.max_prompt_tokens:
            continue
        k = len(vectors[a])
        row = _build_sentence(around, [-1 - j for j in range(k)], [-1 - k - j for j in range(len(vectors[b]))])
        output = encoder.encode_rows([row], torch.cat([vectors[a], vectors[b]]).to(encoder.device))[0]
        target, bare_target = encoder.encode_rows([reference, [*ids[a], *ids[b]]])
        fidelities.append(float(F.cosine_similarity(output, target, dim=0)))
        floors.append(float(bare_target @ target))
        if len(fidelities) == PAIR_COUNT or i > 50 * PAIR_COUNT:
            break
    fidelities, floors = fidelities or [1.0], floors or [1.0]
    return PairRow(
        method,
        len(vectors[0]),
        len(fidelities),
        mean(fidelities),
        min(fidelities),
        mean_of_worst_tenth(fidelities),
        mean(floors),
    )


def _build_sentence(around: Sequence[Row], first: Row, second: Row) -> list[int]:
    before, between, after = around
    return [*before, *first, *between, *second, *after]
