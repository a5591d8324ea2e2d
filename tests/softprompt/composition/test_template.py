"""The template language: its syntax, its errors, and round trips."""

from __future__ import annotations

import subprocess
import sys
import unicodedata
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.composition.template import Mix, Part, Reference, format, parse
from softprompt.errors import PromptError, TemplateError
from softprompt.library.names import is_name_character, name_key
from tests.fuzz.template import check_round_trip


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a lake", ["a lake"]),
        ("[landscape] mountain view", [Reference("landscape"), " mountain view"]),
        ("[fox] next to [a boat]", [Reference("fox"), " next to ", Reference("a boat")]),
        ("a [red fox:1-3], [x:2]", ["a ", Reference("red fox", 1, 3), ", ", Reference("x", 2, 2)]),
        ("[ red fox : 1 - 3 ]", [Reference("red fox", 1, 3)]),
        ("[15b40755cb3aa0a5]", [Reference("15b40755cb3aa0a5")]),
        ("[雪の狐_2]", [Reference("雪の狐_2")]),
        ("[v1][V12]", [Reference("", 1, 1), Reference("", 12, 12)]),
        ("[a*.6 + b*.4]", [Mix(((Reference("a"), 0.6), (Reference("b"), 0.4)))]),
        ("[a+red fox*2+c]", [Mix(((Reference("a"), 1), (Reference("red fox"), 2), (Reference("c"), 1)))]),
        (r"a \[b\] \\ c \ d", ["a [b] \\ c \\ d"]),
        ("2*3+4:5", ["2*3+4:5"]),
        ("", []),
    ],
)
def test_template_is_parsed(text: str, parts: list[Part]) -> None:
    assert parse(text) == parts


def test_weights_are_divided_by_their_sum() -> None:
    (mix,) = parse("[a*3 + b + c*0.5]")
    assert isinstance(mix, Mix)
    assert mix.shares == pytest.approx([3 / 4.5, 1 / 4.5, 0.5 / 4.5])


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("a ]", 3, r"\] has no opening \[.* \\\] for a plain bracket"),
        ("a [b", 3, r"\[ has no closing \]\. .* \\\[ for a plain bracket"),
        ("a [b [c]", 3, "has no closing"),
        ("a []", 4, "expected a name"),
        ("a [ ]", 5, "expected a name"),
        ("[:1]", 2, "expected a name"),
        ("[a + ]", 6, "expected a name"),
        ("x [fo!x]", 6, "'!' is not allowed in a name"),
        (f"[{'x' * 81}]", 2, "the name has 81 characters; at most 80"),
        ("[a:b]", 4, "expected the number of a soft token"),
        ("[a:1-]", 5, r"expected \] after the number"),
        ("[a:0]", 4, "count from 1"),
        ("[a: 3-2]", 5, "count from 1"),
        ("[v0]", 2, r"\[v1\], \[v2\] and so on"),
        ("[v123456]", 2, r"\[v1\], \[v2\] and so on"),
        ("[v1:2]", 2, "one per bracket"),
        ("[a*]", 4, "from 0.001 to 1000, such as .6 or 2"),
        ("[a*0 + b]", 4, "expected a weight"),
        ("[a*-1 + b]", 4, "expected a weight"),
        ("[a*nan + b]", 4, "expected a weight"),
        ("[a*1001 + b]", 4, "expected a weight"),
        ("[a*.6 b]", 7, r"\+ and another name, or \]"),
        ("[a*,6 + b]", 4, "expected a weight"),
        ("[a*.6]", 3, "only works in a mix.* barely changes what they mean"),
        ("[a:1*.6 + b]", 2, "a soft token has no meaning of its own"),
        ("[b + v1]", 6, "a soft token has no meaning of its own"),
        ("[a + b + A]", 10, "already in the mix"),
        ("[a+b+c+d+e+f+g+h+i]", 18, "at most 8 terms"),
    ],
)
def test_error_names_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(TemplateError, match=rf"^at character {column}: .*{message}") as raised:
        parse(text)
    assert raised.value.column == column
    assert isinstance(raised.value, PromptError)
    assert raised.value.bad_input


# names that the library allows; v1, v2, … are reserved
name = st.text(st.characters().filter(is_name_character), min_size=1, max_size=12).filter(
    lambda text: text == text.strip() and not (text[0] in "vV" and text[1:].isdecimal())
)
number = st.integers(1, 9999)
sliced = st.builds(lambda name, a, b: Reference(name, min(a, b), max(a, b)), name, number, number)
reference = st.builds(Reference, name) | sliced | number.map(lambda n: Reference("", n, n))
mix = st.builds(
    lambda names, weights: Mix(tuple((Reference(name), weight) for name, weight in zip(names, weights, strict=False))),
    st.lists(name, min_size=2, max_size=8, unique_by=name_key),
    st.lists(st.floats(0.001, 1000), min_size=8, max_size=8),
)
words = st.text(min_size=1)


def merge_texts(parts: list[Part]) -> list[Part]:
    """Merge adjacent texts."""
    merged: list[Part] = []
    for part in parts:
        if merged and isinstance(part, str) and isinstance(merged[-1], str):
            merged[-1] += part
        else:
            merged.append(part)
    return merged


@given(st.lists(words | reference | mix).map(merge_texts))
def test_formatted_template_parses_to_the_same_parts(parts: list[Part]) -> None:
    assert parse(format(parts)) == parts


@given(st.text(alphabet="ab[]\\:-1.5 v+*", max_size=24) | st.text())
def test_any_text_parses_or_raises_template_error(text: str) -> None:
    with suppress(TemplateError):
        again = format(parse(text))
        assert parse(again) == parse(text)
        assert format(parse(again)) == again
    escaped = "".join("\\" + character if character in "[]\\" else character for character in text)
    assert parse(escaped) == ([text] if text else [])


@given(st.binary() | st.text(alphabet="[]\\:-1.5 v+*é", max_size=24).map(str.encode))
def test_any_bytes_parse_or_raise_template_error(data: bytes) -> None:
    with suppress(TemplateError):
        check_round_trip(data)


def test_names_allow_what_the_library_allows() -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    assert parse(f"[{decomposed}]") == [Reference(decomposed)]


def test_long_text_is_parsed_in_linear_time() -> None:
    assert parse("\\" * 100_000) == ["\\" * 50_000]
    assert parse("[a]" * 50_000) == [Reference("a")] * 50_000


def test_parsing_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, softprompt.composition.template, softprompt.composition.sentence; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "numpy"} & set(loaded) == set()
