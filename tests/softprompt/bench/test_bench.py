"""The benchmark: the operation count behind the limit, the peer's loop, the floors, the prompts, and the rows."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from softprompt.bench import soft, time_to_target
from softprompt.bench.machine import describe, time_in_turns
from softprompt.bench.plan import PARTS, Plan
from softprompt.bench.prompts import read_prompts, select_prompts, shipped_prompts, tuning_prompts
from softprompt.bench.random_towers import SHAPES, random_tower
from softprompt.bench.results import (
    COPY,
    DEFAULT,
    FAST,
    INVERSION,
    KINDS,
    OURS,
    STOCK,
    TOGETHER,
    TUNED,
    WARM,
    BatchRow,
    HardRow,
    SoftRow,
    StepRow,
    TimeRow,
    compute_ratios,
)
from softprompt.bench.roofline import count_positions, step_flops
from softprompt.bench.run import measure
from softprompt.bench.soft import mean_of_worst_tenth
from softprompt.bench.textual_inversion import DECAY, Inversion, train_for_steps, tune_rate
from softprompt.config import TrainConfig
from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import TextTransformerConfig
from softprompt.errors import ConfigError, PromptError, UnknownModel
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.objectives.pooled import encode_target
from softprompt.training.init import init_vectors
from tests.conftest import BOAT, FOX

TINY = {
    "count": 2,
    "hard_count": 1,
    "seconds": 0.05,
    "watch": 0.02,
    "patience": 0.2,
    "texts": tuple(shipped_prompts()[:2]),
}
TINY |= {"step_batches": (1, 2), "batches": (1, 3), "step_tokens": (2,), "soft_tokens": (1, 3), "hard_tokens": (4,)}


pytestmark = pytest.mark.usefixtures("cached_typeable")


@pytest.fixture(scope="module")
def tiny() -> TextEncoder:
    """A text encoder with two small layers, so that a step takes a millisecond."""
    tokenizer = Tokenizer()
    tower = random_tower(TextTransformerConfig(32, 2, 2, 77, 49_408, 32, 64))
    return TextEncoder("tiny", tower, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))


@pytest.fixture(scope="module")
def rows(tiny: TextEncoder) -> list[Any]:
    """All rows of a benchmark with short trainings. Which rows exist does not depend on their length."""
    messages: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (soft, time_to_target):
            patch.setattr(module, "TrainConfig", partial(TrainConfig, steps=20))
        patch.setattr(time_to_target, "GOAL_CONFIG", replace(time_to_target.GOAL_CONFIG, steps=20))
        rows = list(measure(tiny, Plan.quick(**TINY), messages.append))
    assert messages
    return rows


@pytest.mark.parametrize(("batch", "tokens"), [(1, 8), (3, 2)])
def test_the_limit_counts_the_plain_forward_pass_and_the_input_gradient(
    encoder: TextEncoder, batch: int, tokens: int
) -> None:
    n = count_positions(encoder.config, encoder.specials, tokens)
    assert n == tokens + 2
    x = torch.randn(batch, n, encoder.width, requires_grad=True)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        states = encoder.tower.final_norm(encoder.tower.states(x))
        encoder.tower.project(states[:, -1]).sum().backward()
    assert step_flops(encoder.config, n, batch) == counter.get_total_flops()


def test_textual_inversion_is_adamw_on_the_padded_context(encoder: TextEncoder) -> None:
    config = TrainConfig(tokens=3, contexts=())
    prompt, rate = tokenize_prompt(encoder, FOX), 0.01
    start = init_vectors(encoder, prompt, config, 3, None)
    target = encode_target(encoder, prompt, [ALONE])
    tower, specials = encoder.tower, encoder.specials
    ids = torch.tensor([*specials.start, 0, 0, 0, *specials.end, *[specials.pad] * 72])
    vectors = torch.nn.Parameter(start[0].clone())
    optimizer = torch.optim.AdamW([vectors], lr=rate, weight_decay=DECAY)
    padded_loop, short_loop = (Inversion(encoder, target, start, rate, padded=padded) for padded in (True, False))
    for _ in range(6):
        x = tower.table[ids].clone()
        x[1:4] = vectors
        output = tower.project(tower.final_norm(tower.states((x + tower.positions).unsqueeze(0)))[:, 4])
        similarity = F.cosine_similarity(output, target)
        optimizer.zero_grad()
        (1 - similarity).sum().backward()
        optimizer.step()
        assert padded_loop.step().item() == pytest.approx(similarity.item(), abs=1e-5)
        assert short_loop.step().item() == pytest.approx(similarity.item(), abs=1e-5)
    assert torch.allclose(padded_loop.vectors[0], vectors, atol=1e-4)
    assert torch.allclose(short_loop.vectors[0], vectors, atol=1e-4)


def test_the_tuned_rate_is_the_fastest_of_the_grid(encoder: TextEncoder) -> None:
    config = TrainConfig(tokens=8, contexts=(), steps=30)
    rate = tune_rate(encoder, [FOX, BOAT], config, 0.9)
    target = F.normalize(encode_target(encoder, tokenize_prompt(encoder, FOX), [ALONE]), dim=-1)

    def similarity(rate: float) -> float:
        vectors = train_for_steps(encoder, [FOX], config, rate)[0]
        return float(encoder.encode_rows([[-1 - i for i in range(8)]], vectors) @ target.T)

    assert similarity(rate) > 0.9
    assert similarity(rate) > similarity(rate / 20)


def test_the_shipped_prompts_are_long_enough_and_differ_from_the_tuning_prompts() -> None:
    tokenizer = Tokenizer()
    counts = [len(tokenizer.encode(text)) for text in shipped_prompts()]
    assert len(counts) >= 60
    assert min(counts) >= 16
    assert sum(count >= 32 for count in counts) >= 20
    assert max(counts) <= 75
    assert len(tuning_prompts()) == 10
    assert set(tuning_prompts()) & set(shipped_prompts()) == set()


def test_prompts_for_k_tokens_have_at_least_twice_as_many(encoder: TextEncoder) -> None:
    texts = ["a lake", "a lake at sunrise with old trees", FOX, shipped_prompts()[-1]]
    assert select_prompts(encoder, texts, 1, 9) == texts[2:]  # at least 8 tokens
    assert select_prompts(encoder, texts, 8, 9) == texts[3:]
    assert select_prompts(encoder, texts, 1, 1) == [FOX]
    assert select_prompts(encoder, texts, 40, 9) == []


def test_prompts_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(f"# mine\n{FOX}\n\n  {BOAT} \n{FOX}\n", encoding="utf-8")
    assert read_prompts(path) == [FOX, BOAT]
    path.write_bytes(b"\xff\xfe")
    for unreadable in (path, tmp_path / "none.txt"):
        with pytest.raises(PromptError, match="cannot read"):
            read_prompts(unreadable)
    path.write_text("\n")
    with pytest.raises(PromptError, match="contains no prompts"):
        read_prompts(path)


def test_timed_calls_take_turns() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    medians = time_in_turns(calls, 0.0, torch.device("cpu"))
    turns = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert turns == ["a", "b"] * (len(turns) // 2)
    assert len(turns) >= 2 * 3
    assert all(seconds > 0 for seconds in medians.values())


def test_describe_reports_the_machine(encoder: TextEncoder) -> None:
    machine = describe(encoder, 0.05)
    assert machine.cpu
    assert min(machine.cores, machine.threads, machine.memory, machine.gflops) > 0
    assert (machine.model, machine.arithmetic) == ("mini", "cpu, float32")


def test_the_benchmark_has_rows_of_every_kind_and_method(rows: list[Any]) -> None:
    assert {row.kind for row in rows} == set(KINDS)
    assert {row.part for row in rows} == set(PARTS)
    assert json.loads(json.dumps([row.as_dict() for row in rows]))
    by_kind = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    vocabulary = 49_406
    assert [(row.batch, row.tokens, row.vocabulary) for row in by_kind["steps"]] == [
        (1, 8, vocabulary),
        (2, 8, vocabulary),
        (1, 2, vocabulary),
        (1, 8, vocabulary // 4),
    ]
    assert all(set(row.seconds) == {STOCK, FAST, INVERSION, OURS} and row.limit > 0 for row in by_kind["steps"])
    assert [(row.method, row.batch) for row in by_kind["batches"]] == [(OURS, 1), (OURS, 3), (DEFAULT, 1), (DEFAULT, 3)]
    assert {row.method for row in by_kind["time"]} == {OURS, WARM, TOGETHER, DEFAULT, TUNED, INVERSION}
    assert [(row.tokens, row.method) for row in by_kind["soft"]] == [
        (k, method) for k in (1, 3) for method in (DEFAULT, OURS, TUNED, COPY)
    ]
    assert {row.method for row in by_kind["hard"]} == {OURS, WARM, FAST, STOCK, COPY}
    assert [row.count for row in by_kind["pairs"]] == [2]


def test_the_floor_is_a_copy_of_the_first_k_tokens(tiny: TextEncoder, rows: list[Any]) -> None:
    texts = shipped_prompts()[:2]
    targets = tiny.encode(texts)
    copies = tiny.encode_rows([tiny.tokenizer.encode(text)[:3] for text in texts])
    (copy,) = [row for row in rows if isinstance(row, SoftRow) and row.method == COPY and row.tokens == 3]
    assert copy.similarity == pytest.approx(float((copies * targets).sum(-1).mean()), abs=1e-5)
    assert copy.similarity == copy.copy
    assert copy.error_to_copy == pytest.approx(1)
    assert copy.fidelity == pytest.approx(copy.copy_fidelity)


def test_a_plan_without_suitable_prompts_is_an_error(tiny: TextEncoder) -> None:
    messages: list[str] = []
    with pytest.raises(PromptError, match="nothing could be measured"):
        list(measure(tiny, Plan.quick(**TINY | {"texts": ("a lake",), "parts": ("time", "hard")}), messages.append))
    assert any("no prompt has 16 to 75 tokens" in line for line in messages)


def test_an_invalid_plan_is_rejected() -> None:
    for settings in ({"parts": ("speeed",)}, {"count": 0}, {"seconds": 0.0}, {"batches": (0,)}):
        with pytest.raises(ConfigError):
            Plan.quick(**settings)


def test_ratios_are_computed_from_the_rows() -> None:
    full = StepRow(64, 8, 49_406, {STOCK: 3.0, FAST: 0.5, INVERSION: 1.0, OURS: 0.2}, 0.16)
    smaller_vocabulary = StepRow(64, 8, 100, {STOCK: 1.0, FAST: 0.5, INVERSION: 1.0, OURS: 0.2}, 0.16)
    times = [
        TimeRow(method, "0.99 alone", 8, 50, 50, seconds, 10, 1 / seconds)
        for method, seconds in ((OURS, 0.1), (TUNED, 0.5), (INVERSION, 1.5), (TOGETHER, 0.02))
    ]
    soft = SoftRow(DEFAULT, 3, 50, 0.999, 0.99, 0.99, 0.9, 0.95, 0.92, 0.5, 0.6)
    hard = [
        HardRow(method, 8, 50, 5.0, similarity, 0.8, 1.0, 0.7)
        for method, similarity in ((OURS, 0.98), (STOCK, 0.9), (FAST, 0.95))
    ]
    ratios = compute_ratios([full, smaller_vocabulary, *times, soft, *hard])
    assert ratios == {
        "step ratio to stock PEZ, batch 64": pytest.approx(15),
        "step ratio to fast PEZ, batch 64": pytest.approx(2.5),
        "step over the limit, batch 64": pytest.approx(1.25),
        "time to 0.99 alone, textual inversion to ours": pytest.approx(15),
        "time to 0.99 alone, textual inversion, tuned to ours": pytest.approx(5),
        "prompts per second, together to one at a time": pytest.approx(5),
        "composition error to the floor's, k 3": pytest.approx(0.125),
        "hard error to stock PEZ's, k 8": pytest.approx(0.2),
        "hard error to fast PEZ's, k 8": pytest.approx(0.4),
    }
    assert BatchRow(OURS, 30, 8, 0.1, 300, None).prompts_per_second == pytest.approx(1)
    assert mean_of_worst_tenth([0.9, *[1.0] * 19, 0.8]) == pytest.approx(0.85)


@pytest.mark.parametrize("name", SHAPES)
def test_random_towers_have_the_shapes_of_open_clip(name: str) -> None:
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(next(iter(spec.submodule_search_locations))) / "model_configs" / f"{name}.json"
    config = json.loads(path.read_text())
    text = config["text_cfg"]
    assert SHAPES[name] == (text["width"], text["heads"], text["layers"], config["embed_dim"])
    assert (text["context_length"], text["vocab_size"]) == (77, 49_408)
    assert not config.get("quick_gelu", False)


def test_an_unknown_shape_is_rejected() -> None:
    from softprompt.bench.random_towers import random_encoder

    with pytest.raises(UnknownModel, match="Close: ViT-B-32"):
        random_encoder("vit-b32")
