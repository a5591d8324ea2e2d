"""Compare the hard readouts that each method finds in the same amount of time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor
from torch.nn import functional as F

from softprompt.bench.environment import BenchEnvironment
from softprompt.bench.machine import synchronize
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
from softprompt.objectives.pooled import encode_target
from softprompt.training.optimizer import CHECK_STEPS

SAME_SIMILARITY = 1e-4  # the largest float32 difference between two similarities of the same text


@dataclass(frozen=True)
class HardPromptRow:
    """Result for one text: its similarity once re-tokenized, whether that gives the scored ids, and the search time."""

    similarity: float
    survives: bool
    seconds: float


def measure_hard(environment: BenchEnvironment) -> Iterator[HardRow]:
    """Yield a HardRow per method for each k.

    For each prompt, PEZ gets the same start and time as our search, which may exceed `plan.seconds` by up to one round.
    """
    encoder, plan = environment.encoder, environment.plan
    for tokens in plan.hard_tokens:
        prompts = [tokenize_prompt(encoder, text) for text in environment.select_texts(tokens, plan.hard_count)]
        if not prompts:
            continue
        find_hard(encoder, prompts[0], tokens, HardConfig(steps=1))  # fills the vocabulary cache of the model
        cold = HardConfig(steps=MAX_STEPS, seconds=plan.seconds, init="random")
        warm = HardConfig(steps=MAX_STEPS, seconds=plan.seconds)
        rows: dict[str, list[HardPromptRow]] = {method: [] for method in (OURS, WARM, FAST, STOCK, COPY)}
        interrupted: KeyboardInterrupt | None = None
        try:
            for i, prompt in enumerate(prompts, 1):
                environment.notify(
                    f"hard quality: {tokens} tokens, {plan.seconds:g} s per method, prompt {i} of {len(prompts)}"
                )
                target = encode_target(encoder, prompt, [ALONE])[0]
                rows[OURS].append(_run_ours(encoder, prompt, tokens, cold, target))
                rows[WARM].append(_run_ours(encoder, prompt, tokens, warm, target))
                seconds = rows[OURS][-1].seconds
                rows[FAST].append(_run_pez(encoder, prompt, tokens, seconds, stock=False))
                rows[STOCK].append(_run_pez(encoder, prompt, tokens, seconds, stock=True))
                rows[COPY].append(_copy_tokens(encoder, prompt, tokens, target))
        except KeyboardInterrupt as error:
            interrupted = error
        completed = len(rows[COPY])  # prompts that every method has finished
        for method, method_rows in rows.items():
            if completed:
                yield _summarize(method, tokens, method_rows[:completed], rows[COPY])
        if interrupted:
            raise interrupted


def _summarize(method: str, tokens: int, rows: list[HardPromptRow], copies: list[HardPromptRow]) -> HardRow:
    similarities = [row.similarity for row in rows]
    return HardRow(
        method=method,
        tokens=tokens,
        count=len(rows),
        seconds=mean(row.seconds for row in rows),
        similarity=mean(similarities),
        similarity_worst=min(similarities),
        kept=mean(row.survives for row in rows),
        copy=mean(copy.similarity for copy in copies),
    )


def _run_ours(
    encoder: TextEncoder, prompt: HardPrompt, tokens: int, config: HardConfig, target: Tensor
) -> HardPromptRow:
    synchronize(encoder.device)
    started_at = time.perf_counter()
    search_similarity = 0.0  # of the ids; the readout reports the similarity of its text
    seconds = 0.0  # of the search, without the grading in contexts that only our method does

    def on_report(report: HardReport) -> None:
        nonlocal search_similarity, seconds
        search_similarity, seconds = report.similarity, time.perf_counter() - started_at

    readout = find_hard(encoder, prompt, tokens, config, on_report)
    row = encoder.tokenizer.encode(readout.text)
    similarity = _similarity(encoder, row, target)
    return HardPromptRow(
        similarity, len(row) == tokens and abs(similarity - search_similarity) < SAME_SIMILARITY, seconds
    )


def _run_pez(encoder: TextEncoder, prompt: HardPrompt, tokens: int, seconds: float, stock: bool) -> HardPromptRow:
    """Run PEZ (as published, with `stock`) from the first of our starts.

    PEZ gets an advantage: of all tokens that were best at some step, those that score highest once re-tokenized count.
    """
    start = random_tokens(
        TypeableVocabulary.from_config(encoder, HardConfig()).ids, 1, tokens, torch.Generator().manual_seed(0)
    )
    synchronize(encoder.device)
    started_at = time.perf_counter()
    target = encode_target(encoder, prompt, [ALONE])
    pez = Pez(encoder, target, start, stock=stock)
    read_steps = 1 if encoder.device.type == "cpu" else CHECK_STEPS  # each read waits for the device
    bests: dict[tuple[int, ...], None] = {}
    while time.perf_counter() - started_at < seconds or not bests:
        pez.step()
        if pez.steps % read_steps == 0:
            bests[tuple(pez.best[0].tolist())] = None
    elapsed = time.perf_counter() - started_at
    retyped = {
        row: encoder.tokenizer.encode(encoder.tokenizer.decode(row))[: encoder.max_prompt_tokens] for row in bests
    }
    similarities = {row: _similarity(encoder, ids, target[0]) for row, ids in retyped.items()}
    best = max(similarities, key=lambda row: similarities[row])
    return HardPromptRow(similarities[best], retyped[best] == list(best), elapsed)


def _copy_tokens(encoder: TextEncoder, prompt: HardPrompt, tokens: int, target: Tensor) -> HardPromptRow:
    row = encoder.tokenizer.encode(prompt.text)[:tokens]
    retyped = encoder.tokenizer.encode(encoder.tokenizer.decode(row))[: encoder.max_prompt_tokens]
    return HardPromptRow(_similarity(encoder, retyped, target), retyped == row, 0.0)


@torch.no_grad()
def _similarity(encoder: TextEncoder, row: list[int], target: Tensor) -> float:
    return float(F.cosine_similarity(encoder.encode_rows([row])[0], target, dim=0)) if row else 0.0
