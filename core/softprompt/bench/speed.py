"""Measure step times against the peers and the limit, and the speed of training many prompts at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import torch
from torch import Tensor

from softprompt.bench.environment import SOFT_TOKENS, BenchEnvironment
from softprompt.bench.machine import Call, Matmul, PeakMemory, time_in_turns
from softprompt.bench.plan import Plan
from softprompt.bench.results import DEFAULT, FAST, INVERSION, OURS, STOCK, BatchRow, Row, StepRow
from softprompt.bench.roofline import count_positions, step_flops
from softprompt.bench.textual_inversion import DEFAULT_RATE, Inversion
from softprompt.config import MAX_STEPS, TrainConfig
from softprompt.discrete.pez import Pez
from softprompt.discrete.search import random_tokens
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.objectives.pooled import encode_target
from softprompt.training.batch import TrainingBatch
from softprompt.training.init import init_vectors
from softprompt.training.model_kinds import make_objective
from softprompt.training.scheduler import max_rows

CPU_BATCH_SIZES = (1, 4, 16, 64)
VOCABULARY_DIVISOR = 4
DEFAULT_STEPS = TrainConfig().steps


class TrainingStep:
    """A callable that takes one of our training steps on `texts` in one batch, with the regular checks."""

    def __init__(self, encoder: TextEncoder, texts: list[str], config: TrainConfig) -> None:
        assert config.tokens != "auto"
        self.batch = TrainingBatch(encoder, make_objective(encoder, config, [config.tokens]), config, [config.tokens])
        for text in texts:
            prompt = tokenize_prompt(encoder, text, "cut")
            (slot,) = self.batch.prepare([(prompt, config, "")])
            self.batch.insert([(slot, init_vectors(encoder, prompt, config, config.tokens, None), None)])

    def __call__(self) -> None:
        self.batch.step()
        if self.batch.should_check():
            self.batch.check()


def measure_speed(environment: BenchEnvironment) -> Iterator[Row]:
    """Yield BatchRows by batch size, without and with contexts, then StepRows by batch, token count and vocabulary."""
    encoder, plan, notify = environment.encoder, environment.plan, environment.notify
    yield from _measure_batches(environment)  # first: on a CPU, peak memory would include earlier measurements
    vocabulary = len(encoder.ordinary_ids)
    for batch in plan.step_batches:
        notify(f"a step of each method, batch {batch}")
        yield measure_step(encoder, plan, batch, SOFT_TOKENS, vocabulary)
    for tokens in plan.step_tokens:
        if tokens <= encoder.max_prompt_tokens:
            notify(f"a step of each method, {tokens} tokens")
            yield measure_step(encoder, plan, 1, tokens, vocabulary)
    notify("a step of each method, a quarter of the vocabulary")
    yield measure_step(encoder, plan, 1, SOFT_TOKENS, vocabulary // VOCABULARY_DIVISOR)


def measure_step(encoder: TextEncoder, plan: Plan, batch: int, tokens: int, vocabulary: int) -> StepRow:
    """Time one step of each method, in turns. PEZ searches only the first `vocabulary` tokens."""
    texts = list(islice(cycle(plan.texts), batch))
    alone = TrainConfig(tokens=tokens, contexts=(), steps=MAX_STEPS)
    targets = _encode_targets(encoder, texts)
    ids = encoder.ordinary_ids[:vocabulary]
    start_tokens = random_tokens(ids, batch, tokens, torch.Generator().manual_seed(0))
    start = encoder.tower.table[start_tokens].float()
    matmul = Matmul(encoder.device, encoder.tower.table.dtype)
    calls: dict[str, Call] = {
        STOCK: Pez(encoder, targets, start_tokens, ids, stock=True).step,
        FAST: Pez(encoder, targets, start_tokens, ids).step,
        INVERSION: Inversion(encoder, targets, start, DEFAULT_RATE).step,
        OURS: TrainingStep(encoder, texts, alone),
        "matmul": matmul,
    }
    seconds = time_in_turns(calls, plan.watch, encoder.device)
    flops_per_second = matmul.flops / seconds.pop("matmul")
    flops = step_flops(encoder.config, count_positions(encoder.config, encoder.specials, tokens), batch)
    return StepRow(batch, tokens, len(ids), seconds, flops / flops_per_second)


def _encode_targets(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """Return the targets (b, e) of all texts. A repeated text is encoded only once."""
    targets = {text: encode_target(encoder, tokenize_prompt(encoder, text, "cut"), [ALONE]) for text in set(texts)}
    return torch.cat([targets[text] for text in texts])


def _measure_batches(environment: BenchEnvironment) -> Iterator[BatchRow]:
    encoder, plan, notify = environment.encoder, environment.plan, environment.notify
    configs = {
        OURS: TrainConfig(tokens=SOFT_TOKENS, contexts=(), steps=MAX_STEPS),
        DEFAULT: TrainConfig(tokens=SOFT_TOKENS, steps=MAX_STEPS),
    }
    for method, config in configs.items():
        for batch in plan.batches or _batch_sizes(encoder, config):
            notify(f"{batch} prompts at once, {'with' if config.contexts else 'without'} contexts")
            texts = list(islice(cycle(plan.texts), batch))
            try:
                with PeakMemory(encoder.device) as peak:
                    seconds = time_in_turns(
                        {method: TrainingStep(encoder, texts, config)}, plan.watch / 2, encoder.device
                    )[method]
            except torch.OutOfMemoryError:
                notify(f"the device is out of memory with {batch} prompts at once")
                break
            yield BatchRow(method, batch, SOFT_TOKENS, seconds, DEFAULT_STEPS, peak.memory)


def _batch_sizes(encoder: TextEncoder, config: TrainConfig) -> list[int]:
    """Return the batch sizes to measure: on a GPU, up to the size that training would use."""
    if encoder.device.type != "cuda":
        return list(CPU_BATCH_SIZES)
    assert config.tokens != "auto"
    limit = max_rows(encoder, make_objective(encoder, config, [config.tokens]))
    return [*(size for size in (1, 4, 16, 64, 256, 1024) if size < limit), limit]
