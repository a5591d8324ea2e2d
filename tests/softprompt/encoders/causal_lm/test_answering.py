"""Many answers at once are the answers that one gets alone, for each family."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache

import pytest
import torch

from softprompt.encoders.causal_lm import answering
from softprompt.encoders.causal_lm.answering import answer
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.errors import PromptError
from tests.softprompt.encoders.causal_lm.tiny_models import CONFIGS, save_model

SHARED, ENDINGS = [20, 21], [[30, 31, 32], [33], [34, 35]]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CausalLM]:
    @cache
    def load(family: str) -> CausalLM:
        return load_causal_lm(save_model(family, tmp_path_factory.mktemp(family)), "cpu")

    return load


@pytest.mark.parametrize("shared", [SHARED, []])
@pytest.mark.parametrize("family", CONFIGS)
def test_greedy_answers_are_those_that_one_gets_alone(
    family: str, shared: list[int], load: Callable[[str], CausalLM]
) -> None:
    model = load(family)
    tokens = min(20, model.window - 5)
    begin = model.embed(shared).reshape(-1, model.width)
    answers = answer(model, [(begin, model.embed(ending)) for ending in ENDINGS], tokens)
    expected = [model.generate(torch.cat([begin, model.embed(ending)]), tokens) for ending in ENDINGS]
    assert [list(each.ids) for each in answers] == expected


@pytest.mark.parametrize("family", ["Llama", "GPT2", "OPT"])
def test_the_expectations_are_those_of_a_whole_pass(family: str, load: Callable[[str], CausalLM]) -> None:
    model = load(family)
    begin = model.embed(SHARED)
    answers = answer(
        model, [(begin, model.embed(ending)) for ending in ENDINGS], 6,
        samples=3, generator=torch.Generator().manual_seed(0), top=5,
    )  # fmt: skip
    assert len(answers) == 3 * len(ENDINGS)
    for number, each in enumerate(answers):
        text = torch.cat([begin, model.embed(ENDINGS[number // 3]), model.embed(each.ids)])
        logs = model.logits(text.unsqueeze(0))[0, -len(each.ids) - 1 : -1].log_softmax(-1)
        values, ids = logs.topk(5)
        torch.testing.assert_close(each.top_logs, values, atol=1e-4, rtol=0)
        assert each.top_ids.tolist() == ids.tolist()


def test_inputs_with_different_starts_share_a_batch(load: Callable[[str], CausalLM]) -> None:
    model = load("Llama")
    starts = [model.embed([20, 21]), model.embed([22])]
    inputs = [(start, model.embed(ending)) for start in starts for ending in ENDINGS]
    answers = answer(model, inputs, 10)
    assert [list(each.ids) for each in answers] == [model.generate(torch.cat(parts), 10) for parts in inputs]


def test_samples_follow_the_probabilities(load: Callable[[str], CausalLM]) -> None:
    model = load("Llama")
    draws = 4000
    generator = torch.Generator().manual_seed(0)
    answers = answer(model, [(model.embed(SHARED), model.embed([30]))], 1, samples=draws, generator=generator, top=3)
    counts = Counter(each.ids[0] for each in answers)
    for token, log in zip(answers[0].top_ids[0].tolist(), answers[0].top_logs[0].tolist(), strict=True):
        expected = draws * torch.tensor(log).exp().item()
        assert abs(counts[token] - expected) < 5 * expected**0.5 + 1


def test_equal_seeds_give_equal_samples_in_batches_of_any_size(
    load: Callable[[str], CausalLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("Llama")
    shared = model.embed(SHARED)
    inputs = [(shared, model.embed(ending)) for ending in ENDINGS]

    def sample() -> list[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(5)
        answers = answer(model, inputs, 5, samples=2, generator=generator)
        return [each.ids for each in answers]

    assert sample() == sample()
    monkeypatch.setattr(answering, "BATCH_ANSWERS", 1)
    assert [len(ids) for ids in sample()] == [len(ids) for ids in sample()]


def test_an_answer_ends_with_its_end_token(load: Callable[[str], CausalLM]) -> None:
    model = load("Llama")
    generator = torch.Generator().manual_seed(0)
    answers = answer(model, [(model.embed(SHARED), model.embed([30]))], 30, samples=200, generator=generator)
    ended = [each.ids for each in answers if len(each.ids) < 30]
    assert ended
    for ids in ended:
        assert ids[-1] in model.specials.end
        assert not set(ids[:-1]) & set(model.specials.end)


def test_an_input_without_room_for_an_answer_is_refused(load: Callable[[str], CausalLM]) -> None:
    model = load("Mistral")
    with pytest.raises(PromptError, match=r"its longest question has 5 tokens, but .* at most 4 before an answer of 4"):
        answer(model, [(model.embed(SHARED), model.embed(ending)) for ending in ENDINGS], 4)
