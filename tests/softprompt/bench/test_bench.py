"""The benchmark measures what it says: the count behind the limit, the peer's loop, the floors, the prompts, and rows of every kind."""

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
from softprompt.bench.machine import describe, in_turns
from softprompt.bench.plan import PARTS, Plan
from softprompt.bench.prompts import from_file, shipped, suited, tuning
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
    figures,
)
from softprompt.bench.roofline import positions_of, step_flops
from softprompt.bench.run import measure
from softprompt.bench.soft import worst_tenth
from softprompt.bench.textual_inversion import DECAY, Inversion, after_steps, tuned_rate
from softprompt.config import TrainConfig
from softprompt.encoders.base import SpecialTokens
from softprompt.encoders.clip.rows import ALONE
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.clip.tokenizer import Tokenizer
from softprompt.encoders.clip.transformer import TextTransformerConfig
from softprompt.errors import ConfigError, PromptError, UnknownModel
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.objectives.pooled import encode_targets_in
from softprompt.training.init import init_vectors
from tests.conftest import BOAT, FOX

TINY = {"count": 2, "hard_count": 1, "seconds": 0.05, "watch": 0.02, "patience": 0.2, "texts": tuple(shipped()[:2])}
TINY |= {"step_batches": (1, 2), "batches": (1, 3), "step_tokens": (2,), "soft_tokens": (1, 3), "hard_tokens": (4,)}


pytestmark = pytest.mark.usefixtures("kept_typeable")


@pytest.fixture(scope="module")
def tiny() -> TextEncoder:
    """A tower of two small layers, in which every step takes a millisecond."""
    tokenizer = Tokenizer()
    tower = random_tower(TextTransformerConfig(32, 2, 2, 77, 49_408, 32, 64))
    return TextEncoder("tiny", tower, tokenizer, SpecialTokens((tokenizer.start,), (tokenizer.end,)))


@pytest.fixture(scope="module")
def rows(tiny: TextEncoder) -> list[Any]:
    """All rows, of trainings of a few steps: which there are does not depend on how long they train."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for module in (soft, time_to_target):
            patch.setattr(module, "TrainConfig", partial(TrainConfig, steps=20))
        patch.setattr(time_to_target, "TOWARDS", replace(time_to_target.TOWARDS, steps=20))
        found = list(measure(tiny, Plan.quick(**TINY), said.append))
    assert said
    return found


@pytest.mark.parametrize(("batch", "tokens"), [(1, 8), (3, 2)])
def test_the_limits_count_is_that_of_the_plain_forward_and_input_gradient(
    encoder: TextEncoder, batch: int, tokens: int
) -> None:
    n = positions_of(encoder.config, encoder.specials, tokens)
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
    target = encode_targets_in(encoder, prompt, [ALONE])
    tower, specials = encoder.tower, encoder.specials
    ids = torch.tensor([*specials.start, 0, 0, 0, *specials.end, *[specials.pad] * 72])
    vectors = torch.nn.Parameter(start[0].clone())
    optimizer = torch.optim.AdamW([vectors], lr=rate, weight_decay=DECAY)
    ours, short = (Inversion(encoder, target, start, rate, padded=padded) for padded in (True, False))
    for _ in range(6):
        x = tower.table[ids].clone()
        x[1:4] = vectors
        output = tower.project(tower.final_norm(tower.states((x + tower.positions).unsqueeze(0)))[:, 4])
        similarity = F.cosine_similarity(output, target)
        optimizer.zero_grad()
        (1 - similarity).sum().backward()
        optimizer.step()
        assert ours.step().item() == pytest.approx(similarity.item(), abs=1e-5)
        assert short.step().item() == pytest.approx(similarity.item(), abs=1e-5)
    assert torch.allclose(ours.vectors[0], vectors, atol=1e-4)
    assert torch.allclose(short.vectors[0], vectors, atol=1e-4)


def test_the_tuned_rate_is_the_quickest_of_the_grid(encoder: TextEncoder) -> None:
    config = TrainConfig(tokens=8, contexts=(), steps=30)
    rate = tuned_rate(encoder, [FOX, BOAT], config, 0.9)
    target = F.normalize(encode_targets_in(encoder, tokenize_prompt(encoder, FOX), [ALONE]), dim=-1)

    def similarity(rate: float) -> float:
        vectors = after_steps(encoder, [FOX], config, rate)[0]
        return float(encoder.encode_rows([[-1 - i for i in range(8)]], vectors) @ target.T)

    assert similarity(rate) > 0.9
    assert similarity(rate) > similarity(rate / 20)


def test_the_shipped_prompts_are_long_enough_and_not_those_that_rates_are_chosen_on() -> None:
    tokenizer = Tokenizer()
    counts = [len(tokenizer.encode(text)) for text in shipped()]
    assert len(counts) >= 60
    assert min(counts) >= 16
    assert sum(count >= 32 for count in counts) >= 20
    assert max(counts) <= 75
    assert len(tuning()) == 10
    assert set(tuning()) & set(shipped()) == set()


def test_a_row_at_k_is_of_prompts_of_twice_as_many_tokens(encoder: TextEncoder) -> None:
    texts = ["a lake", "a lake at sunrise with old trees", FOX, shipped()[-1]]
    assert suited(encoder, texts, 1, 9) == texts[2:]  # eight tokens at the least
    assert suited(encoder, texts, 8, 9) == texts[3:]
    assert suited(encoder, texts, 1, 1) == [FOX]
    assert suited(encoder, texts, 40, 9) == []


def test_prompts_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text(f"# mine\n{FOX}\n\n  {BOAT} \n{FOX}\n", encoding="utf-8")
    assert from_file(path) == [FOX, BOAT]
    path.write_bytes(b"\xff\xfe")
    for wrong in (path, tmp_path / "none.txt"):
        with pytest.raises(PromptError, match="cannot be read"):
            from_file(wrong)
    path.write_text("\n")
    with pytest.raises(PromptError, match="holds no prompts"):
        from_file(path)


def test_what_is_compared_takes_turns() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = in_turns(calls, 0.0, torch.device("cpu"))
    turns = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert turns == ["a", "b"] * (len(turns) // 2)
    assert len(turns) >= 2 * 3
    assert all(seconds > 0 for seconds in found.values())


def test_the_machine_is_described(encoder: TextEncoder) -> None:
    machine = describe(encoder, 0.05)
    assert machine.cpu
    assert min(machine.cores, machine.threads, machine.memory, machine.gflops) > 0
    assert (machine.model, machine.arithmetic) == ("mini", "cpu, float32")


def test_there_are_rows_of_every_kind_and_method(rows: list[Any]) -> None:
    assert {row.kind for row in rows} == set(KINDS)
    assert {row.part for row in rows} == set(PARTS)
    assert json.loads(json.dumps([row.as_dict() for row in rows]))
    of = {kind: [row for row in rows if row.kind == kind] for kind in KINDS}
    whole = 49_406
    assert [(row.batch, row.tokens, row.vocabulary) for row in of["steps"]] == [
        (1, 8, whole),
        (2, 8, whole),
        (1, 2, whole),
        (1, 8, whole // 4),
    ]
    assert all(set(row.seconds) == {STOCK, FAST, INVERSION, OURS} and row.limit > 0 for row in of["steps"])
    assert [(row.method, row.batch) for row in of["batches"]] == [(OURS, 1), (OURS, 3), (DEFAULT, 1), (DEFAULT, 3)]
    assert {row.method for row in of["time"]} == {OURS, WARM, TOGETHER, DEFAULT, TUNED, INVERSION}
    assert [(row.tokens, row.method) for row in of["soft"]] == [
        (k, m) for k in (1, 3) for m in (DEFAULT, OURS, TUNED, COPY)
    ]
    assert {row.method for row in of["hard"]} == {OURS, WARM, FAST, STOCK, COPY}
    assert [row.count for row in of["pairs"]] == [2]


def test_a_copy_of_the_first_k_is_the_floor(tiny: TextEncoder, rows: list[Any]) -> None:
    texts = shipped()[:2]
    wanted = tiny.encode(texts)
    copied = tiny.encode_rows([tiny.tokenizer.encode(text)[:3] for text in texts])
    (copy,) = [row for row in rows if isinstance(row, SoftRow) and row.method == COPY and row.tokens == 3]
    assert copy.similarity == pytest.approx(float((copied * wanted).sum(-1).mean()), abs=1e-5)
    assert copy.similarity == copy.copy
    assert copy.error_to_copy == pytest.approx(1)
    assert copy.fidelity == pytest.approx(copy.copy_fidelity)


def test_nothing_to_measure_is_said(tiny: TextEncoder) -> None:
    said: list[str] = []
    with pytest.raises(PromptError, match="nothing could be measured"):
        list(measure(tiny, Plan.quick(**TINY | {"texts": ("a lake",), "parts": ("time", "hard")}), said.append))
    assert any("no prompt has 16 to 75 tokens" in line for line in said)


def test_a_plan_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"parts": ("speeed",)}, {"count": 0}, {"seconds": 0.0}, {"batches": (0,)}):
        with pytest.raises(ConfigError):
            Plan.quick(**wrong)


def test_the_figures_are_ratios_of_the_rows() -> None:
    step = StepRow(64, 8, 49_406, {STOCK: 3.0, FAST: 0.5, INVERSION: 1.0, OURS: 0.2}, 0.16)
    fewer = StepRow(64, 8, 100, {STOCK: 1.0, FAST: 0.5, INVERSION: 1.0, OURS: 0.2}, 0.16)
    times = [
        TimeRow(method, "0.99 alone", 8, 50, 50, seconds, 10, 1 / seconds)
        for method, seconds in ((OURS, 0.1), (TUNED, 0.5), (INVERSION, 1.5), (TOGETHER, 0.02))
    ]
    soft = SoftRow(DEFAULT, 3, 50, 0.999, 0.99, 0.99, 0.9, 0.95, 0.92, 0.5, 0.6)
    hard = [
        HardRow(method, 8, 50, 5.0, similarity, 0.8, 1.0, 0.7)
        for method, similarity in ((OURS, 0.98), (STOCK, 0.9), (FAST, 0.95))
    ]
    found = figures([step, fewer, *times, soft, *hard])
    assert found == {
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
    assert worst_tenth([0.9, *[1.0] * 19, 0.8]) == pytest.approx(0.85)


@pytest.mark.parametrize("name", SHAPES)
def test_random_towers_have_the_shapes_of_open_clips(name: str) -> None:
    spec = find_spec("open_clip")
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(next(iter(spec.submodule_search_locations))) / "model_configs" / f"{name}.json"
    theirs = json.loads(path.read_text())
    text = theirs["text_cfg"]
    assert SHAPES[name] == (text["width"], text["heads"], text["layers"], theirs["embed_dim"])
    assert (text["context_length"], text["vocab_size"]) == (77, 49_408)
    assert not theirs.get("quick_gelu", False)


def test_an_unknown_shape_is_refused() -> None:
    from softprompt.bench.random_towers import random_encoder

    with pytest.raises(UnknownModel, match="Close: ViT-B-32"):
        random_encoder("vit-b32")
