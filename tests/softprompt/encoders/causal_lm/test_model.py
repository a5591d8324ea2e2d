"""The frozen model gives what transformers gives, for each family: logits, greedy answers and gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from softprompt.encoders.base import FrozenModel, encode_prompt
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.encoders.causal_lm.model import CausalLM
from softprompt.errors import ConfigError, PromptError
from tests.library_model import a_prompt
from tests.softprompt.encoders.causal_lm.tiny_models import BOS, CONFIGS, CONTEXT, EOS, PAD, VOCABULARY, save_model

PROMPTS = ("What is the capital of France?", "You are a pirate.", "a")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., CausalLM]:
    """Load a tiny model of a family; each model is made and loaded once."""

    @cache
    def folder(family: str) -> Path:
        return save_model(family, tmp_path_factory.mktemp(family))

    @cache
    def load(family: str, precision: str = "float32") -> CausalLM:
        return load_causal_lm(folder(family), "cpu", precision)

    return load


def reference(model: CausalLM) -> Any:
    family = transformers.AutoModelForCausalLM.from_pretrained(model.folder, attn_implementation="eager")
    return family.eval()


def row(model: CausalLM, text: str) -> list[int]:
    return [*model.specials.start, *model.tokenizer.encode(text)]


@pytest.mark.parametrize("family", CONFIGS)
def test_logits_from_embeddings_equal_those_from_ids(family: str, load: Callable[..., CausalLM]) -> None:
    model = load(family)
    for text in PROMPTS:
        ids = row(model, text)
        with torch.no_grad():
            expected = reference(model)(torch.tensor([ids])).logits
        logits = model.logits(model.embed([ids]))
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("family", CONFIGS)
def test_greedy_answers_equal_those_of_transformers(family: str, load: Callable[..., CausalLM]) -> None:
    model, expected_model = load(family), reference(load(family))
    lengths = []
    for text in PROMPTS:
        ids = torch.tensor([row(model, text)])
        expected = expected_model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=PAD
        )
        answer = model.generate(model.embed(ids[0]), 16)
        assert answer == expected[0, ids.shape[1] :].tolist()
        lengths.append(len(answer))
    assert max(lengths) > 8  # longer than the sliding windows, so that the cache has to cut


@pytest.mark.parametrize("family", CONFIGS)
def test_gradients_reach_the_embeddings_and_no_weight(family: str, load: Callable[..., CausalLM]) -> None:
    model = load(family)
    soft = model.embed(model.tokenizer.encode("You are a")).requires_grad_()
    rest = model.embed(row(model, "What"))
    model.logits(torch.cat([rest[:1], soft, rest[1:]]).unsqueeze(0)).square().sum().backward()
    assert soft.grad is not None
    assert (soft.grad.norm(dim=-1) > 0).all()
    assert soft.grad.shape == (len(soft), model.width)
    weights = list(model._model.parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in weights)
    assert not model._model.training


@pytest.mark.parametrize("family", CONFIGS)
def test_bfloat16_gives_nearly_the_same(family: str, load: Callable[..., CausalLM]) -> None:
    model, half = load(family), load(family, "bfloat16")
    assert half.dtype == torch.bfloat16
    assert half.device_label == "cpu, bfloat16"
    soft = half.embed([row(half, PROMPTS[0])]).requires_grad_()
    assert soft.dtype == torch.float32
    logits = half.logits(soft)
    logits.sum().backward()
    assert soft.grad is not None
    assert soft.grad.isfinite().all()
    expected = model.logits(model.embed([row(model, PROMPTS[0])]))
    assert torch.nn.functional.cosine_similarity(logits, expected, dim=-1).min() > 0.99
    assert half.generate(soft[0].detach(), 4)
    assert half.fingerprint == model.fingerprint


@pytest.mark.parametrize("family", CONFIGS)
def test_the_statistics_are_those_of_the_models_input(family: str, load: Callable[..., CausalLM]) -> None:
    """Gemma's input is its table times a factor; OPT's is narrower than its states."""
    model = load(family)
    table = model.embed(model.ordinary_ids)
    assert table.shape == (VOCABULARY - 10, model.width)
    assert model.width == (16 if family == "OPT" else 32)
    assert model.token_std == pytest.approx(float(table.std()), rel=1e-4)
    assert model.token_norm == pytest.approx(float(table.norm(dim=-1).mean()), rel=1e-4)
    raw = float(model._model.get_input_embeddings().weight[model.ordinary_ids].std())
    assert model.token_std == pytest.approx(raw * (32**0.5 if family.startswith("Gemma") else 1), rel=1e-4)


def test_a_causal_lm_is_a_frozen_model(load: Callable[..., CausalLM]) -> None:
    model = load("Llama")
    frozen: FrozenModel = model
    assert frozen.max_prompt_tokens == CONTEXT - 2
    assert model.specials.start == (BOS,)
    assert model.specials.end == (EOS,)
    assert load("GPT2").specials.start == ()
    assert repr(model).startswith("CausalLM('local-dir:")
    assert load("Qwen2").fingerprint != model.fingerprint


def test_padding_on_the_right_changes_nothing(load: Callable[..., CausalLM]) -> None:
    model = load("Mistral")
    short, long = (model.embed(row(model, text)) for text in ("a pirate", PROMPTS[0]))
    padded = torch.cat([short, torch.randn(len(long) - len(short), model.width)])
    both = model.logits(torch.stack([padded, long]))
    torch.testing.assert_close(both[0, : len(short)], model.logits(short[None])[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(both[1], model.logits(long[None])[0], atol=1e-5, rtol=0)


def test_logits_of_some_positions(load: Callable[..., CausalLM]) -> None:
    model = load("Gemma2")
    embeddings = model.embed([row(model, PROMPTS[0])] * 2)
    positions = torch.tensor([3, 1, 5])
    torch.testing.assert_close(model.logits(embeddings, positions), model.logits(embeddings)[:, positions])


def test_an_answer_ends_at_an_end_token_or_when_the_context_is_full(load: Callable[..., CausalLM]) -> None:
    model = load("GPT2")
    embeddings = model.embed(row(model, "You are a"))
    answer = model.generate(embeddings, 1000)
    assert len(answer) == CONTEXT - len(embeddings) or answer[-1] == EOS
    assert next(model.stream(embeddings, 1)) == answer[0]
    assert model.generate(embeddings, 0) == []
    for length in (0, CONTEXT):
        with pytest.raises(PromptError, match=f"the input has {length} tokens.*reads 1 to {CONTEXT - 1}"):
            model.generate(torch.zeros(length, model.width), 1)


def test_it_works_whatever_the_caller_has_set_in_torch(tmp_path: Path) -> None:
    with torch.inference_mode(), torch.device("meta"):
        model = load_causal_lm(save_in_plain_torch(tmp_path), "cpu")
        assert model.generate(model.embed([5, 6]), 2)
    soft = model.embed([[5, 6]]).requires_grad_()
    model.logits(soft).sum().backward()
    assert soft.grad is not None


def save_in_plain_torch(folder: Path) -> Path:
    with torch.inference_mode(False), torch.device("cpu"):
        return save_model("Llama", folder)


def test_a_soft_prompt_belongs_to_one_model(load: Callable[..., CausalLM]) -> None:
    model = load("Llama")
    vectors = model.embed([5, 6]).numpy()
    prompt = a_prompt(vectors=vectors, model=model.name, model_fingerprint=model.fingerprint)
    model.check_compatible(prompt)
    with pytest.raises(ConfigError, match="belongs to local-dir:"):
        load("GPT2").check_compatible(prompt)


def test_special_tokens_in_a_text_are_refused(load: Callable[..., CausalLM]) -> None:
    tokenizer = load("Llama").tokenizer
    assert tokenizer.decode(encode_prompt(tokenizer, "Où est-il? 🦊\n")) == "Où est-il? 🦊\n"
    assert len(tokenizer.encode("a pirate " * 20)) > 20  # the file's truncation and padding are off
    assert len(tokenizer) == VOCABULARY
    assert tokenizer.reserved_ids == tokenizer.special_ids == frozenset(range(10))
    with pytest.raises(PromptError, match=r"contains <\|im_end\|>"):
        encode_prompt(tokenizer, "a<|im_end|>b")
    with pytest.raises(PromptError, match="at most 1,000,000"):
        tokenizer.encode("a" * 1_000_001)
