"""A packed row gives what each of its texts gives alone, for each family: logits and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.encoders.causal_lm.packed_rows import PackedBatch, PackedRow
from softprompt.encoders.causal_lm.question_rows import SOFT
from softprompt.errors import PromptError
from tests.softprompt.encoders.causal_lm.tiny_models import CONFIGS, save_model

# the start, and questions with their answers; the longest text has 8 tokens, the smallest window of a tiny model
BEFORE = [20]
ASKED: list[tuple[list[int], list[list[int]]]] = [
    ([30, 31], [[40, 41, 42], [43]]),
    ([], [[44, 45]]),
    ([32], [[46, 1], [47, 48, 49]]),
]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CausalLM]:
    @cache
    def load(family: str) -> CausalLM:
        folder: Path = save_model(family, tmp_path_factory.mktemp(family))
        return load_causal_lm(folder, "cpu")

    return load


def pack(tokens: int) -> PackedRow:
    row = PackedRow()
    root = row.add([*BEFORE, *[SOFT] * tokens])
    for question, answers in ASKED:
        segment = row.add(question, root)
        for answer in answers:
            row.add_answer(answer, segment)
    return row


def one_by_one(model: CausalLM, soft: Tensor) -> Tensor:
    logits = []
    for question, answers in ASKED:
        for answer in answers:
            text = torch.cat([model.embed(BEFORE), soft, model.embed(question), model.embed(answer)])
            logits.append(model.logits(text.unsqueeze(0))[0, -len(answer) - 1 : -1])
    return torch.cat(logits)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_packed_row_gives_what_its_texts_give_alone(family: str, load: Callable[[str], CausalLM]) -> None:
    model = load(family)
    vectors = (torch.randn(2, 2, model.width, generator=torch.Generator().manual_seed(1)) * model.token_std).clone()
    vectors.requires_grad_()
    packed = PackedBatch(model, [pack(2), pack(1)]).logits(vectors)
    expected = torch.cat([one_by_one(model, vectors[0]), one_by_one(model, vectors[1, :1])])
    torch.testing.assert_close(packed, expected, atol=1e-4, rtol=0)
    (gradient,) = torch.autograd.grad(packed.square().sum(), vectors)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), vectors)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-3, rtol=1e-3)
    assert gradient[0].abs().amin() > 0  # every soft token counts
    assert not gradient[1, 1].any()  # the second row has only one


def test_what_is_shared_is_computed_once() -> None:
    row = pack(2)
    assert len(row.ids) == 3 + (2 + 2 + 0) + (0 + 1) + (1 + 1 + 2)
    assert row.length == 3 + 2 + 2


def test_a_text_longer_than_the_model_reads_is_refused(load: Callable[[str], CausalLM]) -> None:
    row = PackedRow()
    row.add_answer([30] * 9, row.add([20]))
    with pytest.raises(PromptError, match=r"has 9 tokens, but .* reads 8 at once"):
        PackedBatch(load("Mistral"), [row])
