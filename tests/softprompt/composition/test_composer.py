"""Compositions: their rows and vectors, their reference texts, and their scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import softprompt
from softprompt import SoftPrompt
from softprompt.composition.composer import (
    CompositionScore,
    compose,
    encode_compositions,
    encode_hidden_states,
    score_compositions,
)
from softprompt.composition.sentence import parse_prompt
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, EntryNotFound, PromptError, TemplateError
from softprompt.library.entry import Entry
from softprompt.text_states import HIDDEN_STATE_SPECS
from tests.conftest import BOAT, FOX
from tests.kept import train_cached
from tests.softprompt.encoders.test_openclip import write_model_folder

RIVER = f"{FOX} beside a river"
Find = Callable[[str], Entry]


@pytest.fixture(scope="module")
def entries(encoder: TextEncoder) -> dict[str, Entry]:
    fox = train_cached(encoder, FOX, tokens=3, steps=100).named("fox")
    boat = train_cached(encoder, BOAT, tokens=4, steps=100).named("boat")
    prompts = {"fox": fox, "boat": boat, "unknown": replace(fox, name="unknown", hard_prompt="")}
    return {name: Entry(f"{i:016x}", 1, prompt) for i, (name, prompt) in enumerate(prompts.items())}


@pytest.fixture
def find(entries: dict[str, Entry]) -> Find:
    return entries.__getitem__


@pytest.fixture
def fox(entries: dict[str, Entry]) -> SoftPrompt:
    return entries["fox"].prompt


def score_of(encoder: TextEncoder, text: str, find: Find) -> CompositionScore:
    composed = compose(encoder, [text], find)
    return score_compositions(encoder, composed, encode_compositions(encoder, composed))[0]


def test_composition_means_its_reference_text(encoder: TextEncoder, entries: dict[str, Entry], find: Find) -> None:
    composed = compose(encoder, ["[fox] beside a river", "[v1][v2] [v3] beside a river"], find, opened=entries["fox"])
    assert [[reference.text for reference in parsed.reference_texts()] for parsed in composed.parsed] == [
        [RIVER],
        [RIVER],
    ]
    first, second = encode_compositions(encoder, composed)
    assert float((first - second).abs().max()) < 1e-5
    assert float(first @ encoder.encode([RIVER])[0]) > 0.98


def test_fidelity_floor_and_tokens(encoder: TextEncoder, find: Find) -> None:
    score = score_of(encoder, "[fox] beside a river", find)
    target, alone = encoder.encode([RIVER, FOX])
    assert score.fidelity is not None
    assert score.fidelity > 0.98
    assert score.floor == pytest.approx(float(target @ alone), abs=1e-5)
    assert (score.tokens, score.reference_tokens) == (6, len(encoder.tokenizer.encode(RIVER)))
    assert score.saved_tokens == score.reference_tokens - 6
    assert score.mixed == ""


def test_floor_of_several_soft_prompts_joins_their_prompts(encoder: TextEncoder, find: Find) -> None:
    score = score_of(encoder, "[fox] next to [boat], at night", find)
    target, bare = encoder.encode([f"{FOX} next to {BOAT}, at night", f"{FOX} {BOAT}"])
    assert score.floor == pytest.approx(float(target @ bare), abs=1e-5)
    assert score.fidelity is not None
    assert score.fidelity > 0.97
    assert score_of(encoder, "[fox] [boat]", find).floor is None  # no added words


def test_hidden_states_are_the_ones_that_the_family_reads(encoder: TextEncoder, find: Find) -> None:
    composed = compose(encoder, ["a [fox:1]", "[fox] at night"], find)
    assert [states.shape for states in encode_hidden_states(encoder, composed, "sd1")] == [
        (2, encoder.width),
        (5, encoder.width),
    ]
    assert [states.shape for states in encode_hidden_states(encoder, composed, "flux")] == [(1, encoder.width)] * 2
    (words,) = encode_hidden_states(encoder, compose(encoder, ["a lake"], find), "sd1")
    assert torch.allclose(
        words,
        encoder.batch_rows([encoder.tokenize("a lake")]).read_states(None, HIDDEN_STATE_SPECS["sd1"]).states[0, 0],
    )


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("[fox], 4k", f"{FOX}, 4k"),
        ("the[fox]shines", f"the {FOX} shines"),
        ("[fox][boat]", f"{FOX} {BOAT}"),
        ("[fox]... [boat]!", f"{FOX}... {BOAT}!"),
        ("[fox][fox]", f"{FOX} {FOX}"),
        ("[fox:1][fox:2-3]", FOX),
        ("[fox:3][fox:1]", f"{FOX} {FOX}"),
        ("[fox:1] and [fox:2]", f"{FOX} and {FOX}"),
        ("[fox]  \n beside", f"{FOX} beside"),
    ],
)
def test_reference_text_keeps_words_and_signs_apart(find: Find, text: str, written: str) -> None:
    assert [reference.text for reference in parse_prompt(text, find).reference_texts()] == [written]


def test_unknown_prompt_gives_similarities_but_no_fidelity(encoder: TextEncoder, find: Find) -> None:
    composed = compose(encoder, ["[unknown] beside a river", "[fox] beside a river"], find)
    embeddings = encode_compositions(encoder, composed)
    assert float(embeddings[0] @ embeddings[1]) == pytest.approx(1, abs=1e-5)
    assert score_compositions(encoder, composed, embeddings)[0] == CompositionScore(6, "", (), None, None, None)
    assert score_of(encoder, "[fox + unknown]", find).fidelity is None


def test_no_fidelity_if_the_reference_text_is_too_long(encoder: TextEncoder, find: Find) -> None:
    score = score_of(encoder, "[fox] and [boat] " * 4, find)
    assert score.fidelity is None
    assert score.reference_tokens is not None
    assert score.reference_tokens > encoder.max_prompt_tokens


def test_slice_of_a_soft_prompt_uses_its_tokens(encoder: TextEncoder, find: Find, fox: SoftPrompt) -> None:
    composed = compose(encoder, ["a [fox:2-3] b [fox:1]"], find)
    assert composed.vectors is not None
    assert composed.vectors.tolist() == fox.vectors[[1, 2, 0]].tolist()
    assert [token for token in composed.rows[0] if token < 0] == [-1, -2, -3]


def test_text_without_soft_prompts_is_plain_text(encoder: TextEncoder, find: Find) -> None:
    composed = compose(encoder, [r"a lake \[in\] winter"], find)
    assert composed.vectors is None
    assert composed.rows == [encoder.tokenize("a lake [in] winter")]
    assert score_compositions(encoder, composed, encode_compositions(encoder, composed)) == [
        CompositionScore(len(composed.rows[0]), "", (), None, None, None)
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [("[fox:4]", "has soft tokens 1 to 3, but the template uses 4"), ("[fox:2-4]", "template uses 2-4")],
)
def test_missing_soft_tokens_are_rejected(encoder: TextEncoder, find: Find, text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        compose(encoder, [text], find)


def test_open_tokens_need_an_open_soft_prompt(encoder: TextEncoder, find: Find) -> None:
    with pytest.raises(PromptError, match="none is open"):
        compose(encoder, ["[v2] hill"], find)


def test_invalid_template_is_rejected(encoder: TextEncoder, find: Find) -> None:
    with pytest.raises(TemplateError, match="at character 1"):
        compose(encoder, ["[fox"], find)


def test_error_names_both_models_if_a_soft_prompt_belongs_to_another(
    encoder: TextEncoder, fox: SoftPrompt, tmp_path: Path
) -> None:
    for other in (
        replace(fox, model="ViT-B-32/openai", model_fingerprint="0123"),
        replace(fox, model="narrow", model_fingerprint="4567", vectors=np.zeros((3, 64), dtype=np.float32)),
    ):
        for text in ("[x] at night", "[x*.5 + fox*.5]"):
            with pytest.raises(ConfigError, match=rf"x belongs to {other.model} \(.*\), but the model here is mini \("):
                compose(encoder, [text], {"x": Entry("1", 1, other.named("x")), "fox": Entry("2", 1, fox)}.__getitem__)


def test_other_weights_of_the_same_width_are_another_model(
    encoder: TextEncoder, entries: dict[str, Entry], tmp_path: Path
) -> None:
    shape = {"width": encoder.width, "heads": encoder.config.heads, "layers": 1}
    name, _ = write_model_folder(tmp_path / "other", text_cfg=shape)
    other = softprompt.load_encoder(name, device="cpu")
    assert other.width == encoder.width
    with pytest.raises(ConfigError, match=rf"fox belongs to mini \(.*\), but the model here is {name}"):
        compose(other, ["[fox] at night"], entries.__getitem__)
    prompt = replace(entries["fox"].prompt, model_fingerprint=other.fingerprint)
    with pytest.raises(ConfigError, match="different weights of mini"):
        compose(encoder, ["[fox] at night"], lambda _: Entry("1", 1, prompt))


def test_unknown_name_raises_the_error_of_the_library(encoder: TextEncoder) -> None:
    with pytest.raises(EntryNotFound, match="'nobody'"):
        compose(encoder, ["[nobody]"], softprompt.Library().open)


def test_composition_that_does_not_fit_is_rejected(encoder: TextEncoder, find: Find) -> None:
    with pytest.raises(PromptError, match="do not fit"):
        compose(encoder, ["[fox] " * 30], find)


def test_reference_of_a_mix_is_the_weighted_mean_of_its_texts(encoder: TextEncoder, find: Find) -> None:
    score = score_of(encoder, "[fox*3 + boat] at night", find)
    assert [(reference.text, reference.share) for reference in score.reference_texts] == [
        (f"{FOX} at night", 0.75),
        (f"{BOAT} at night", 0.25),
    ]
    a, b = encoder.encode([f"{FOX} at night", f"{BOAT} at night"])
    composed = compose(encoder, ["[fox*3 + boat] at night"], find)
    expected = encode_compositions(encoder, composed)[0] @ F.normalize(0.75 * a + 0.25 * b, dim=-1)
    assert score.fidelity == pytest.approx(float(expected), abs=1e-5)
    assert score.mixed == "near"
    assert score.reference_tokens == len(encoder.tokenizer.encode(f"{BOAT} at night"))
    assert score.tokens == 4 + 2  # the longer of the two has 4
