"""What a step costs: beside the peers' and the limit, by batch, tokens and vocabulary; and how many prompts a device trains at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice

import torch
from torch import Tensor

from softprompt.bench.environment import TOKENS, Setting
from softprompt.bench.machine import Call, Matmul, Peak, in_turns
from softprompt.bench.plan import Plan
from softprompt.bench.results import DEFAULT, FAST, INVERSION, OURS, STOCK, BatchRow, Row, StepRow
from softprompt.bench.roofline import positions_of, step_flops
from softprompt.bench.textual_inversion import DEFAULT_RATE, Inversion
from softprompt.config import MAX_STEPS, TrainConfig
from softprompt.discrete.pez import Pez
from softprompt.discrete.search import random_tokens
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.objectives.pooled import encode_targets_in
from softprompt.training.batch import TrainingBatch
from softprompt.training.init import init_vectors
from softprompt.training.scheduler import max_rows
from softprompt.training.trainer import objective_for

SIZES_ON_CPU = (1, 4, 16, 64)
QUARTER = 4
STEPS = TrainConfig().steps


class OurStep:
    """A step of our own training of `texts` in one batch, with the looks at the device that it takes every few steps."""

    def __init__(self, encoder: TextEncoder, texts: list[str], config: TrainConfig) -> None:
        assert config.tokens != "auto"
        self.pool = TrainingBatch(encoder, objective_for(encoder, config, [config.tokens]), config, [config.tokens])
        for text in texts:
            prompt = tokenize_prompt(encoder, text, "cut")
            (member,) = self.pool.prepare([(prompt, config, "")])
            self.pool.insert([(member, init_vectors(encoder, prompt, config, config.tokens, None), None)])

    def __call__(self) -> None:
        self.pool.step()
        if self.pool.should_check():
            self.pool.check()


def speed_rows(setting: Setting) -> Iterator[Row]:
    """A BatchRow for each size, with and without contexts; then StepRows for both batches, by tokens and by vocabulary."""
    encoder, plan, say = setting.encoder, setting.plan, setting.say
    yield from _batches(setting)  # first: what came before would be in the memory that a cpu's rows tell
    whole = len(encoder.ordinary_ids)
    for batch in plan.step_batches:
        say(f"a step of each method, batch {batch}")
        yield step_row(encoder, plan, batch, TOKENS, whole)
    for tokens in plan.step_tokens:
        if tokens <= encoder.max_prompt_tokens:
            say(f"a step of each method, {tokens} tokens")
            yield step_row(encoder, plan, 1, tokens, whole)
    say("a step of each method, a quarter of the vocabulary")
    yield step_row(encoder, plan, 1, TOKENS, whole // QUARTER)


def step_row(encoder: TextEncoder, plan: Plan, batch: int, tokens: int, vocabulary: int) -> StepRow:
    """One step of each method, timed in turns; only the first `vocabulary` tokens are candidates of PEZ's."""
    texts = list(islice(cycle(plan.texts), batch))
    alone = TrainConfig(tokens=tokens, contexts=(), steps=MAX_STEPS)
    targets = _targets(encoder, texts)
    ids = encoder.ordinary_ids[:vocabulary]
    tokens_at_first = random_tokens(ids, batch, tokens, torch.Generator().manual_seed(0))
    start = encoder.tower.table[tokens_at_first].float()
    matmul = Matmul(encoder.device, encoder.tower.table.dtype)
    calls: dict[str, Call] = {
        STOCK: Pez(encoder, targets, tokens_at_first, ids, stock=True).step,
        FAST: Pez(encoder, targets, tokens_at_first, ids).step,
        INVERSION: Inversion(encoder, targets, start, DEFAULT_RATE).step,
        OURS: OurStep(encoder, texts, alone),
        "matmul": matmul,
    }
    seconds = in_turns(calls, plan.watch, encoder.device)
    per_second = matmul.flops / seconds.pop("matmul")
    flops = step_flops(encoder.config, positions_of(encoder.config, encoder.specials, tokens), batch)
    return StepRow(batch, tokens, len(ids), seconds, flops / per_second)


def _targets(encoder: TextEncoder, texts: list[str]) -> Tensor:
    """(b, e)."""
    each = {text: encode_targets_in(encoder, tokenize_prompt(encoder, text, "cut"), [ALONE]) for text in set(texts)}
    return torch.cat([each[text] for text in texts])


def _batches(setting: Setting) -> Iterator[BatchRow]:
    encoder, plan, say = setting.encoder, setting.plan, setting.say
    usual = {
        OURS: TrainConfig(tokens=TOKENS, contexts=(), steps=MAX_STEPS),
        DEFAULT: TrainConfig(tokens=TOKENS, steps=MAX_STEPS),
    }
    for method, config in usual.items():
        for batch in plan.batches or _sizes(encoder, config):
            say(f"{batch} prompts at once, {'with' if config.contexts else 'without'} contexts")
            texts = list(islice(cycle(plan.texts), batch))
            try:
                with Peak(encoder.device) as peak:
                    seconds = in_turns({method: OurStep(encoder, texts, config)}, plan.watch / 2, encoder.device)[
                        method
                    ]
            except torch.OutOfMemoryError:
                say(f"{batch} at once are more than the device has memory for")
                break
            yield BatchRow(method, batch, TOKENS, seconds, STEPS, peak.memory)


def _sizes(encoder: TextEncoder, config: TrainConfig) -> list[int]:
    """Batches worth knowing of: on a GPU up to what a batch of ours would have there."""
    if encoder.device.type != "cuda":
        return list(SIZES_ON_CPU)
    assert config.tokens != "auto"
    most = max_rows(encoder, objective_for(encoder, config, [config.tokens]))
    return [*(size for size in (1, 4, 16, 64, 256, 1024) if size < most), most]
