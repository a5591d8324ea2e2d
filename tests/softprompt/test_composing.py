"""Compositions: how they are written, what the encoder is given, what they mean written out."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import softprompt
from softprompt import SoftPrompt
from softprompt.composing import Reference, compose, parse
from softprompt.encoder import TextEncoder
from softprompt.errors import ConfigError, PromptError
from tests.conftest import FOX


@pytest.fixture(scope="module")
def fox(encoder: TextEncoder) -> SoftPrompt:
    return softprompt.train(encoder, FOX, tokens=3, steps=150).named("fox")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a lake", ["a lake"]),
        ("[landscape] mountain view", [Reference("landscape"), " mountain view"]),
        ("a [red fox:1-3], [x:2]", ["a ", Reference("red fox", 1, 3), ", ", Reference("x", 2, 2)]),
        ("[ red fox : 1 - 3 ]", [Reference("red fox", 1, 3)]),
        ("[v1][V12]", [Reference("", 1, 1), Reference("", 12, 12)]),
        (r"a \[b\] \\ c \ d", ["a [b] \\ c \\ d"]),
        ("", []),
    ],
)
def test_how_a_composition_is_written(text: str, parts: list[str | Reference]) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize("text", ["[", "]", "a [b", "a] b", "[[a]]", "[]", "[ ]", "[a:b]", "[a:1-]", "[:1]"])
def test_brackets_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(PromptError, match=r"\[name\]"):
        parse(text)


@given(st.text(alphabet="ab[]\\:-1 v", max_size=20))
def test_any_text_is_a_composition_or_a_typed_error(text: str) -> None:
    with suppress(PromptError):
        parse(text)
    escaped = "".join("\\" + char if char in "[]\\" else char for char in text)
    assert parse(escaped) == ([text] if text else [])


def test_a_composition_means_what_it_says(encoder: TextEncoder, fox: SoftPrompt) -> None:
    made = compose(encoder, ["[fox] beside a river", "[v1][v2] [v3] beside a river"], lambda _: fox, opened=fox)
    written = f"{FOX} beside a river"
    assert made.written_out == [written, written]
    first, second = encoder.encode_rows(made.rows, made.vectors)
    assert float((first - second).abs().max()) < 1e-5
    assert float(first @ encoder.encode([written])[0]) > 0.98


def test_parts_of_a_soft_prompt_are_its_tokens(encoder: TextEncoder, fox: SoftPrompt) -> None:
    made = compose(encoder, ["a [fox:2-3] b [fox:1]"], lambda _: fox)
    assert made.vectors is not None
    assert made.vectors.tolist() == fox.vectors[[1, 2, 0]].tolist()
    assert [token for token in made.rows[0] if token < 0] == [-1, -2, -3]


def test_text_without_soft_prompts_is_just_text(encoder: TextEncoder) -> None:
    made = compose(encoder, [r"a lake \[in\] winter"], lambda _: pytest.fail("nothing is to be found"))
    assert made.vectors is None
    assert made.rows == [encoder.tokenize("a lake [in] winter")]


@pytest.mark.parametrize(
    ("text", "said"),
    [("[fox:4]", "has soft tokens 1 to 3; 4 was asked for"), ("[fox:3-2]", "3-2 was asked for"), ("[fox:0]", "0 was asked for")],
)
def test_tokens_that_it_does_not_have(encoder: TextEncoder, fox: SoftPrompt, text: str, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        compose(encoder, [text], lambda _: fox)


def test_open_tokens_need_an_open_soft_prompt(encoder: TextEncoder) -> None:
    with pytest.raises(PromptError, match="none is open"):
        compose(encoder, ["[v2] hill"], lambda _: pytest.fail("not asked"))


def test_a_soft_prompt_of_another_model_is_refused(encoder: TextEncoder, fox: SoftPrompt) -> None:
    with pytest.raises(ConfigError, match="train it again"):
        compose(encoder, ["[fox]"], lambda _: replace(fox, model_fingerprint="other"))


def test_one_that_does_not_fit_is_refused(encoder: TextEncoder, fox: SoftPrompt) -> None:
    with pytest.raises(PromptError, match="do not fit"):
        compose(encoder, ["[fox] " * 30], lambda _: fox)
