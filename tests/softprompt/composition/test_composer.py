"""Compositions: what the encoder is given, what they mean written out, how near the one is to the other."""

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
from softprompt.composition.composer import CompositionScore, compose, figures, hidden, pooled
from softprompt.composition.sentence import read_sentence
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import ConfigError, EntryNotFound, PromptError, TemplateError
from softprompt.library.entry import Entry
from softprompt.text_states import READS
from tests.conftest import BOAT, FOX
from tests.kept import trained
from tests.softprompt.encoders.test_openclip import local_dir

RIVER = f"{FOX} beside a river"
Find = Callable[[str], Entry]


@pytest.fixture(scope="module")
def entries(encoder: TextEncoder) -> dict[str, Entry]:
    fox = trained(encoder, FOX, tokens=3, steps=100).named("fox")
    boat = trained(encoder, BOAT, tokens=4, steps=100).named("boat")
    made = {"fox": fox, "boat": boat, "unknown": replace(fox, name="unknown", hard_prompt="")}
    return {name: Entry(f"{i:016x}", 1, prompt) for i, (name, prompt) in enumerate(made.items())}


@pytest.fixture
def find(entries: dict[str, Entry]) -> Find:
    return entries.__getitem__


@pytest.fixture
def fox(entries: dict[str, Entry]) -> SoftPrompt:
    return entries["fox"].prompt


def figures_of(encoder: TextEncoder, text: str, find: Find) -> CompositionScore:
    made = compose(encoder, [text], find)
    return figures(encoder, made, pooled(encoder, made))[0]


def test_a_composition_means_what_it_says(encoder: TextEncoder, entries: dict[str, Entry], find: Find) -> None:
    made = compose(encoder, ["[fox] beside a river", "[v1][v2] [v3] beside a river"], find, opened=entries["fox"])
    assert [[one.text for one in sentence.reference_texts()] for sentence in made.sentences] == [[RIVER], [RIVER]]
    first, second = pooled(encoder, made)
    assert float((first - second).abs().max()) < 1e-5
    assert float(first @ encoder.encode([RIVER])[0]) > 0.98


def test_fidelity_floor_and_tokens(encoder: TextEncoder, find: Find) -> None:
    found = figures_of(encoder, "[fox] beside a river", find)
    target, alone = encoder.encode([RIVER, FOX])
    assert found.fidelity is not None
    assert found.fidelity > 0.98
    assert found.floor == pytest.approx(float(target @ alone), abs=1e-5)
    assert (found.tokens, found.written_tokens) == (6, len(encoder.tokenizer.encode(RIVER)))
    assert found.saved == found.written_tokens - 6
    assert found.mixed == ""


def test_the_floor_of_several_is_their_hard_prompts_one_after_the_other(encoder: TextEncoder, find: Find) -> None:
    found = figures_of(encoder, "[fox] next to [boat], at night", find)
    target, bare = encoder.encode([f"{FOX} next to {BOAT}, at night", f"{FOX} {BOAT}"])
    assert found.floor == pytest.approx(float(target @ bare), abs=1e-5)
    assert found.fidelity is not None
    assert found.fidelity > 0.97
    assert figures_of(encoder, "[fox] [boat]", find).floor is None  # nothing is added


def test_hidden_states_are_those_that_a_family_reads(encoder: TextEncoder, find: Find) -> None:
    made = compose(encoder, ["a [fox:1]", "[fox] at night"], find)
    assert [states.shape for states in hidden(encoder, made, "sd1")] == [(2, encoder.width), (5, encoder.width)]
    assert [states.shape for states in hidden(encoder, made, "flux")] == [(1, encoder.width)] * 2
    (words,) = hidden(encoder, compose(encoder, ["a lake"], find), "sd1")
    assert torch.allclose(words, encoder.batch_rows([encoder.tokenize("a lake")]).read(None, READS["sd1"]).states[0, 0])


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
def test_a_sentence_is_written_out_as_the_encoder_reads_it(find: Find, text: str, written: str) -> None:
    assert [one.text for one in read_sentence(text, find).reference_texts()] == [written]


def test_one_whose_hard_prompt_is_not_known_has_similarities_and_no_fidelity(encoder: TextEncoder, find: Find) -> None:
    made = compose(encoder, ["[unknown] beside a river", "[fox] beside a river"], find)
    ours = pooled(encoder, made)
    assert float(ours[0] @ ours[1]) == pytest.approx(1, abs=1e-5)
    assert figures(encoder, made, ours)[0] == CompositionScore(6, "", (), None, None, None)
    assert figures_of(encoder, "[fox + unknown]", find).fidelity is None


def test_written_out_it_may_be_too_long_for_the_model(encoder: TextEncoder, find: Find) -> None:
    found = figures_of(encoder, "[fox] and [boat] " * 4, find)
    assert found.fidelity is None
    assert found.written_tokens is not None
    assert found.written_tokens > encoder.max_prompt_tokens


def test_parts_of_a_soft_prompt_are_its_tokens(encoder: TextEncoder, find: Find, fox: SoftPrompt) -> None:
    made = compose(encoder, ["a [fox:2-3] b [fox:1]"], find)
    assert made.vectors is not None
    assert made.vectors.tolist() == fox.vectors[[1, 2, 0]].tolist()
    assert [token for token in made.rows[0] if token < 0] == [-1, -2, -3]


def test_text_without_soft_prompts_is_just_text(encoder: TextEncoder, find: Find) -> None:
    made = compose(encoder, [r"a lake \[in\] winter"], find)
    assert made.vectors is None
    assert made.rows == [encoder.tokenize("a lake [in] winter")]
    assert figures(encoder, made, pooled(encoder, made)) == [
        CompositionScore(len(made.rows[0]), "", (), None, None, None)
    ]


@pytest.mark.parametrize(
    ("text", "said"), [("[fox:4]", "has soft tokens 1 to 3; 4 was asked for"), ("[fox:2-4]", "2-4 was asked for")]
)
def test_tokens_that_it_does_not_have(encoder: TextEncoder, find: Find, text: str, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        compose(encoder, [text], find)


def test_open_tokens_need_an_open_soft_prompt(encoder: TextEncoder, find: Find) -> None:
    with pytest.raises(PromptError, match="none is open"):
        compose(encoder, ["[v2] hill"], find)


def test_a_template_that_cannot_be_read_is_refused(encoder: TextEncoder, find: Find) -> None:
    with pytest.raises(TemplateError, match="at character 1"):
        compose(encoder, ["[fox"], find)


def test_a_soft_prompt_of_another_model_is_refused_naming_both(
    encoder: TextEncoder, fox: SoftPrompt, tmp_path: Path
) -> None:
    for other in (
        replace(fox, model="ViT-B-32/openai", model_fingerprint="0123"),
        replace(fox, model="narrow", model_fingerprint="4567", vectors=np.zeros((3, 64), dtype=np.float32)),
    ):
        for text in ("[x] at night", "[x*.5 + fox*.5]"):
            with pytest.raises(ConfigError, match=rf"x belongs to {other.model} \(.*\), and the model here is mini \("):
                compose(encoder, [text], {"x": Entry("1", 1, other.named("x")), "fox": Entry("2", 1, fox)}.__getitem__)


def test_other_weights_of_the_same_width_are_another_model(
    encoder: TextEncoder, entries: dict[str, Entry], tmp_path: Path
) -> None:
    shape = {"width": encoder.width, "heads": encoder.config.heads, "layers": 1}
    name, _ = local_dir(tmp_path / "other", text_cfg=shape)
    other = softprompt.load_encoder(name, device="cpu")
    assert other.width == encoder.width
    with pytest.raises(ConfigError, match=rf"fox belongs to mini \(.*\), and the model here is {name}"):
        compose(other, ["[fox] at night"], entries.__getitem__)
    prompt = replace(entries["fox"].prompt, model_fingerprint=other.fingerprint)
    with pytest.raises(ConfigError, match="other weights of mini"):
        compose(encoder, ["[fox] at night"], lambda _: Entry("1", 1, prompt))


def test_what_is_not_found_is_said_by_who_was_asked(encoder: TextEncoder) -> None:
    with pytest.raises(EntryNotFound, match="'nobody'"):
        compose(encoder, ["[nobody]"], softprompt.Library().open)


def test_one_that_does_not_fit_is_refused(encoder: TextEncoder, find: Find) -> None:
    with pytest.raises(PromptError, match="do not fit"):
        compose(encoder, ["[fox] " * 30], find)


def test_the_meaning_of_a_mix_is_the_weighted_mean_of_the_sentences(encoder: TextEncoder, find: Find) -> None:
    found = figures_of(encoder, "[fox*3 + boat] at night", find)
    assert [(one.text, one.share) for one in found.written_out] == [
        (f"{FOX} at night", 0.75),
        (f"{BOAT} at night", 0.25),
    ]
    a, b = encoder.encode([f"{FOX} at night", f"{BOAT} at night"])
    made = compose(encoder, ["[fox*3 + boat] at night"], find)
    expected = pooled(encoder, made)[0] @ F.normalize(0.75 * a + 0.25 * b, dim=-1)
    assert found.fidelity == pytest.approx(float(expected), abs=1e-5)
    assert found.mixed == "near"
    assert found.written_tokens == len(encoder.tokenizer.encode(f"{BOAT} at night"))
    assert found.tokens == 4 + 2  # as many as the longer of the two has
