"""What soft tokens are worth by their number: similarity alone, composition fidelity, and two in one sentence, beside the floors."""

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

from softprompt.bench.environment import Setting
from softprompt.bench.results import COPY, DEFAULT, OURS, TUNED, WARM, PairRow, SoftRow
from softprompt.bench.textual_inversion import after_steps
from softprompt.config import TrainConfig
from softprompt.encoders.base import Row
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import SoftPromptError
from softprompt.evaluation.fidelity import grade
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.prompts.results import ContextFidelity
from softprompt.training.scheduler import train_scheduled
from softprompt.training.task import TrainingTask
from softprompt.training.trainer import objective_for

PAIR_TOKENS, PAIRS = 3, 40
# two soft prompts in one sentence; no content word of these stands in a context of the training
SENTENCES = (
    ("", "in front of", ""),
    ("", "in the style of", ""),
    ("a mosaic showing", "above", ""),
    ("", "and", ", soft evening light"),
    ("a tapestry with", "between", "and a river"),
)


def soft_rows(setting: Setting) -> Iterator[SoftRow | PairRow]:
    """SoftRows of every method for each number of tokens, and a PairRow. All have as many steps, and the same start but for the warm one."""
    encoder, plan, say = setting.encoder, setting.plan, setting.say
    for tokens in plan.soft_tokens:
        texts = setting.texts(tokens, plan.count)
        if not texts:
            continue
        usual = TrainConfig(tokens=tokens)
        alone = replace(usual, contexts=())
        training: dict[str, Callable[[], list[Tensor]]] = {
            DEFAULT: partial(_trained, encoder, texts, usual),
            WARM: partial(_trained, encoder, texts, replace(usual, init="prompt")),
            OURS: partial(_trained, encoder, texts, alone),
            TUNED: partial(_inverted, setting, texts, alone),
        }
        copies = _graded(encoder, texts, [encoder.embed(encoder.tokenizer.encode(text)[:tokens]) for text in texts])
        for method in plan.soft_methods:
            say(f"soft quality: {len(texts)} prompts, {tokens} tokens, {method}")
            vectors = training[method]()
            yield _row(method, tokens, _graded(encoder, texts, vectors), copies)
            if tokens == PAIR_TOKENS and method == DEFAULT and len(texts) > 1:
                yield _pairs(encoder, texts, vectors, method)
        yield _row(COPY, tokens, copies, copies)


Graded = list[tuple[float, ContextFidelity | None]]


def _trained(encoder: TextEncoder, texts: Sequence[str], config: TrainConfig) -> list[Tensor]:
    """(k, w) of each text."""
    found: dict[str, Tensor] = {}
    for task, member in train_scheduled(
        encoder, partial(objective_for, encoder), [TrainingTask(text, config) for text in texts]
    ):
        if isinstance(member, SoftPromptError):
            raise member
        found[task.text] = member.vectors
    return [found[text] for text in texts]


def _inverted(setting: Setting, texts: list[str], config: TrainConfig) -> list[Tensor]:
    return list(after_steps(setting.encoder, texts, config, setting.tuned_rate))


def _graded(encoder: TextEncoder, texts: Sequence[str], vectors: Sequence[Tensor]) -> Graded:
    return [grade(encoder, tokenize_prompt(encoder, text), its) for text, its in zip(texts, vectors, strict=True)]


def _row(method: str, tokens: int, graded: Graded, copies: Graded) -> SoftRow:
    similarities = [similarity for similarity, _ in graded]
    compositions = [made for _, made in graded if made]
    fidelities = [grade.similarity for made in compositions for grade in made.contexts] or [1.0]
    return SoftRow(
        method=method,
        tokens=tokens,
        count=len(graded),
        similarity=mean(similarities),
        similarity_worst=min(similarities),
        fidelity=mean(fidelities),
        fidelity_worst=min(fidelities),
        fidelity_decile=worst_tenth(fidelities),
        floor=mean(made.floor for made in compositions) if compositions else 1.0,
        copy=mean(similarity for similarity, _ in copies),
        copy_fidelity=mean([made.mean for _, made in copies if made] or [1.0]),
    )


def worst_tenth(values: Sequence[float]) -> float:
    """The mean of the lowest tenth, of at least one."""
    return mean(sorted(values)[: max(1, round(len(values) / 10))])


@torch.no_grad()
def _pairs(encoder: TextEncoder, texts: list[str], trained: list[Tensor], method: str) -> PairRow:
    pairs = list(permutations(range(len(texts)), 2))
    random.Random(0).shuffle(pairs)
    ids = [encoder.tokenizer.encode(text) for text in texts]
    fidelities: list[float] = []
    floors: list[float] = []
    for i, (a, b) in enumerate(pairs):
        around = [
            encoder.tokenizer.encode(words) if words else [] for words in SENTENCES[len(fidelities) % len(SENTENCES)]
        ]
        written = _sentence(around, ids[a], ids[b])
        if len(written) > encoder.max_prompt_tokens:
            continue
        k = len(trained[a])
        row = _sentence(around, [-1 - j for j in range(k)], [-1 - k - j for j in range(len(trained[b]))])
        ours = encoder.encode_rows([row], torch.cat([trained[a], trained[b]]).to(encoder.device))[0]
        target, bare = encoder.encode_rows([written, [*ids[a], *ids[b]]])
        fidelities.append(float(F.cosine_similarity(ours, target, dim=0)))
        floors.append(float(bare @ target))
        if len(fidelities) == PAIRS or i > 50 * PAIRS:
            break
    fidelities, floors = fidelities or [1.0], floors or [1.0]
    return PairRow(
        method,
        len(trained[0]),
        len(fidelities),
        mean(fidelities),
        min(fidelities),
        worst_tenth(fidelities),
        mean(floors),
    )


def _sentence(around: Sequence[Row], first: Row, second: Row) -> list[int]:
    before, between, after = around
    return [*before, *first, *between, *second, *after]
