"""Syntax of image programs in copied prompts: how it is recognized and removed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.prompts.syntax import describe_syntax, find_syntax, prepare_prompt

INFOTEXT = "a red fox\nNegative prompt: blurry, low quality\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
CASES = [  # text, kinds of syntax, text with `plain`
    ("a red fox in the snow", "", "a red fox in the snow"),
    ("(red fox:1.3) in (deep) snow", "weight", "red fox in (deep) snow"),
    ("((masterpiece)), [[blurry]] (((fox)))", "weight", "masterpiece, blurry fox"),
    ("(a (red:1.2) fox:1.1)", "weight", "a red fox"),
    ("a clock (at 12:30) in 16:9 (16:9)", "", "a clock (at 12:30) in 16:9 (16:9)"),
    ("a fox BREAK a lake", "keyword", "a fox a lake"),
    ("TOM AND JERRY", "", "TOM AND JERRY"),
    ("a fox, <lora:snow_v2:0.8>, night", "lora", "a fox, night"),
    ("a fox <lyco:x:1> <hypernet:y:1>", "lora", "a fox"),
    ("embedding:easynegative a fox", "embedding", "a fox"),
    ("a {red|blue} fox", "choice", "a red fox"),
    ("a {2$$red|blue} {0.3::fox|cat}", "choice", "a red fox"),
    ("a {red {hot|cold}|blue} fox", "choice", "a red hot fox"),
    ("a [cat|dog] and a [fox:wolf:0.5]", "choice", "a cat and a fox"),
    ("a __colour__ __animals/cat__", "wildcard", "a"),
    (r"fox \(animal\)", "escape", "fox (animal)"),
    ("[landscape] mountain view", "", "[landscape] mountain view"),
    ("brackets ) that ( do ] not {match", "", "brackets ) that ( do ] not {match"),
    (INFOTEXT, "infotext", "a red fox"),
    (INFOTEXT.replace("\n", " "), "infotext", "a red fox"),
    ("a fox\nSteps: 20, Sampler: Euler a", "infotext", "a fox"),
    ("Steps: 20 to a better life", "", "Steps: 20 to a better life"),
]


@pytest.mark.parametrize(("text", "kinds", "plain"), CASES)
def test_syntax_is_recognized_and_removed(text: str, kinds: str, plain: str) -> None:
    prepared = prepare_prompt(text, plain=True)
    assert (prepared.kinds, prepared.text) == (set(kinds.split()), plain)


def test_without_plain_only_an_infotext_is_cut() -> None:
    for text, kinds, plain in CASES:
        assert prepare_prompt(text).text == (plain if kinds == "infotext" else text)


@given(st.text(alphabet="ab :1.|$,_()[]{}<>\\\nBREAKlor", max_size=60))
def test_spans_are_ordered_and_plain_text_adds_nothing(text: str) -> None:
    spans = find_syntax(text)
    edges = [edge for span in spans for edge in (span.start, span.end)]
    assert edges == sorted(edges)
    assert all(0 <= span.start < span.end <= len(text) for span in spans)
    allowed = set(text) | {" "}
    assert set(prepare_prompt(text, plain=True).text) <= allowed


def test_notice_names_the_syntax_and_what_happened_to_it() -> None:
    kinds = prepare_prompt(f"(fox:1.2) <lora:x:1> {INFOTEXT}").kinds
    assert describe_syntax(kinds, plain=False) == (
        "the prompt has weights such as (word:1.3) and LoRA tags such as <lora:name:1>: the model reads them as words. "
        "Use plain=True to remove them; the prompt was cut before the negative prompt or the settings"
    )
    assert describe_syntax({"keyword"}, plain=True, several=True) == (
        "some prompts have keywords such as BREAK: they were removed"
    )
    assert describe_syntax((), plain=False) == ""
