"""What k real tokens are worth that each method finds in the same time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.bench.environment import Setting
from softprompt.bench.machine import synchronise
from softprompt.bench.results import COPY, FAST, OURS, STOCK, WARM, HardRow
from softprompt.config import MAX_STEPS, HardConfig
from softprompt.discrete import HardReport, find_hard
from softprompt.discrete.pez import Pez
from softprompt.discrete.search import random_tokens
from softprompt.discrete.vocabulary import TypeableVocabulary
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.base import HardPrompt
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.objectives.pooled import encode_targets_in
from softprompt.training.optimizer import CHECK_STEPS

SAME = 1e-4  # two similarities of one text, in float32


@dataclass(frozen=True)
class HardPromptRow:
    """A text, its similarity as typed, whether it tokenises to the ids that were scored, and the seconds that it took."""

    similarity: float
    kept: bool
    seconds: float


def hard_rows(setting: Setting) -> Iterator[HardRow]:
    """HardRows of every method for each k. PEZ has on each prompt as long as ours took from the same start, which ends with a whole round."""
    encoder, plan = setting.encoder, setting.plan
    for tokens in plan.hard_tokens:
        prompts = [tokenize_prompt(encoder, text) for text in setting.texts(tokens, plan.hard_count)]
        if not prompts:
            continue
        find_hard(encoder, prompts[0], tokens, HardConfig(steps=1))  # what is made of the vocabulary, once for a model
        cold = HardConfig(steps=MAX_STEPS, seconds=plan.seconds, init="random")
        warm = HardConfig(steps=MAX_STEPS, seconds=plan.seconds)
        found: dict[str, list[HardPromptRow]] = {method: [] for method in (OURS, WARM, FAST, STOCK, COPY)}
        interrupted: KeyboardInterrupt | None = None
        try:
            for i, prompt in enumerate(prompts, 1):
                setting.say(f"hard quality: {tokens} tokens, {plan.seconds:g} s a method, prompt {i} of {len(prompts)}")
                target = encode_targets_in(encoder, prompt, [ALONE])[0]
                found[OURS].append(_ours(encoder, prompt, tokens, cold, target))
                found[WARM].append(_ours(encoder, prompt, tokens, warm, target))
                seconds = found[OURS][-1].seconds
                found[FAST].append(_pez(encoder, prompt, tokens, seconds, stock=False))
                found[STOCK].append(_pez(encoder, prompt, tokens, seconds, stock=True))
                found[COPY].append(_copied(encoder, prompt, tokens, target))
        except KeyboardInterrupt as error:
            interrupted = error
        whole = len(found[COPY])  # prompts that every method has had
        for method, each in found.items():
            if whole:
                yield _row(method, tokens, each[:whole], found[COPY])
        if interrupted:
            raise interrupted


def _row(method: str, tokens: int, found: list[HardPromptRow], copies: list[HardPromptRow]) -> HardRow:
    similarities = [one.similarity for one in found]
    return HardRow(
        method=method,
        tokens=tokens,
        count=len(found),
        seconds=mean(one.seconds for one in found),
        similarity=mean(similarities),
        similarity_worst=min(similarities),
        kept=mean(one.kept for one in found),
        copy=mean(one.similarity for one in copies),
    )


def _ours(encoder: TextEncoder, prompt: HardPrompt, tokens: int, config: HardConfig, target: Tensor) -> HardPromptRow:
    synchronise(encoder.device)
    began = time.perf_counter()
    scored = 0.0  # of the ids that were searched with; the readout's own figure is of its text already
    seconds = (
        0.0  # until the search ended; what comes after is the fidelity in contexts, which no other method is asked for
    )

    def remember(report: HardReport) -> None:
        nonlocal scored, seconds
        scored, seconds = report.similarity, time.perf_counter() - began

    made = find_hard(encoder, prompt, tokens, config, remember)
    row = encoder.tokenizer.encode(made.text)
    similarity = _similarity(encoder, row, target)
    return HardPromptRow(similarity, len(row) == tokens and abs(similarity - scored) < SAME, seconds)


def _pez(encoder: TextEncoder, prompt: HardPrompt, tokens: int, seconds: float, stock: bool) -> HardPromptRow:
    """PEZ as published, from the first of our starts. Of all that were the best so far, the one that is best when typed is taken: a gift."""
    start = random_tokens(TypeableVocabulary.of(encoder, HardConfig()).ids, 1, tokens, torch.Generator().manual_seed(0))
    synchronise(encoder.device)
    began = time.perf_counter()
    target = encode_targets_in(encoder, prompt, [ALONE])
    pez = Pez(encoder, target, start, stock=stock)
    every = 1 if encoder.device.type == "cpu" else CHECK_STEPS  # each look waits for the device
    bests: dict[tuple[int, ...], None] = {}
    while time.perf_counter() - began < seconds or not bests:
        pez.step()
        if pez.steps % every == 0:
            bests[tuple(pez.best[0].tolist())] = None
    passed = time.perf_counter() - began
    typed = {row: encoder.tokenizer.encode(encoder.tokenizer.decode(row))[: encoder.max_prompt_tokens] for row in bests}
    similarities = {row: _similarity(encoder, again, target[0]) for row, again in typed.items()}
    best = max(similarities, key=lambda row: similarities[row])
    return HardPromptRow(similarities[best], typed[best] == list(best), passed)


def _copied(encoder: TextEncoder, prompt: HardPrompt, tokens: int, target: Tensor) -> HardPromptRow:
    row = encoder.tokenizer.encode(prompt.text)[:tokens]
    again = encoder.tokenizer.encode(encoder.tokenizer.decode(row))[: encoder.max_prompt_tokens]
    return HardPromptRow(_similarity(encoder, again, target), again == row, 0.0)


@torch.no_grad()
def _similarity(encoder: TextEncoder, row: list[int], target: Tensor) -> float:
    return float(F.cosine_similarity(encoder.encode_rows([row])[0], target, dim=0)) if row else 0.0
