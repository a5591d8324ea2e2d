"""The template language: how soft prompts stand in a sentence, and what is said of one that cannot be read."""

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
from softprompt.library.names import is_name_character, same
from tests.fuzz.template import one


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
def test_how_a_template_is_written(text: str, parts: list[Part]) -> None:
    assert parse(text) == parts


def test_shares_are_weights_over_their_sum() -> None:
    (mix,) = parse("[a*3 + b + c*0.5]")
    assert isinstance(mix, Mix)
    assert mix.shares == pytest.approx([3 / 4.5, 1 / 4.5, 0.5 / 4.5])


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("a ]", 3, r"] has no partner: .* \\] for the character"),
        ("a [b", 3, r"\[ has no partner: .* \\\[ for the character"),
        ("a [b [c]", 3, "has no partner"),
        ("a []", 4, "a name is expected"),
        ("a [ ]", 5, "a name is expected"),
        ("[:1]", 2, "a name is expected"),
        ("[a + ]", 6, "a name is expected"),
        ("x [fo!x]", 6, "'!' is none of them"),
        (f"[{'x' * 81}]", 2, "up to 80 characters, and this one 81"),
        ("[a:b]", 4, "the number of a soft token is expected"),
        ("[a:1-]", 5, r"\], after a number"),
        ("[a:0]", 4, "counted from 1"),
        ("[a: 3-2]", 5, "counted from 1"),
        ("[v0]", 2, r"\[v1\], \[v2\] and so on"),
        ("[v123456]", 2, r"\[v1\], \[v2\] and so on"),
        ("[v1:2]", 2, "one in a bracket"),
        ("[a*]", 4, "from 0.001 to 1000, such as .6 or 2"),
        ("[a*0 + b]", 4, "a weight is expected"),
        ("[a*-1 + b]", 4, "a weight is expected"),
        ("[a*nan + b]", 4, "a weight is expected"),
        ("[a*1001 + b]", 4, "a weight is expected"),
        ("[a*.6 b]", 7, r"\+ and another name, or \]"),
        ("[a*,6 + b]", 4, "a weight is expected"),
        ("[a*.6]", 3, "a share of a mix.* hardly changes what they mean"),
        ("[a:1*.6 + b]", 2, "a soft token has no meaning of its own"),
        ("[b + v1]", 6, "a soft token has no meaning of its own"),
        ("[a + b + A]", 10, "in the mix already"),
        ("[a+b+c+d+e+f+g+h+i]", 18, "up to 8 terms"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(text: str, column: int, said: str) -> None:
    with pytest.raises(TemplateError, match=rf"^at character {column}: .*{said}") as refused:
        parse(text)
    assert refused.value.column == column
    assert isinstance(refused.value, PromptError)
    assert refused.value.bad_input


# names as the library allows them; v1 and its like are reserved
name = st.text(st.characters().filter(is_name_character), min_size=1, max_size=12).filter(
    lambda text: text == text.strip() and not (text[0] in "vV" and text[1:].isdecimal())
)
number = st.integers(1, 9999)
sliced = st.builds(lambda name, a, b: Reference(name, min(a, b), max(a, b)), name, number, number)
reference = st.builds(Reference, name) | sliced | number.map(lambda n: Reference("", n, n))
mix = st.builds(
    lambda names, weights: Mix(tuple((Reference(one), weight) for one, weight in zip(names, weights, strict=False))),
    st.lists(name, min_size=2, max_size=8, unique_by=same),
    st.lists(st.floats(0.001, 1000), min_size=8, max_size=8),
)
words = st.text(min_size=1)


def joined(parts: list[Part]) -> list[Part]:
    """The parts with no two texts next to each other."""
    made: list[Part] = []
    for part in parts:
        if made and isinstance(part, str) and isinstance(made[-1], str):
            made[-1] += part
        else:
            made.append(part)
    return made


@given(st.lists(words | reference | mix).map(joined))
def test_what_is_written_reads_back(parts: list[Part]) -> None:
    assert parse(format(parts)) == parts


@given(st.text(alphabet="ab[]\\:-1.5 v+*", max_size=24) | st.text())
def test_any_text_is_a_template_or_a_typed_error(text: str) -> None:
    with suppress(TemplateError):
        again = format(parse(text))
        assert parse(again) == parse(text)
        assert format(parse(again)) == again
    escaped = "".join("\\" + char if char in "[]\\" else char for char in text)
    assert parse(escaped) == ([text] if text else [])


@given(st.binary() | st.text(alphabet="[]\\:-1.5 v+*é", max_size=24).map(str.encode))
def test_any_bytes_are_withstood(data: bytes) -> None:
    with suppress(TemplateError):
        one(data)


def test_names_are_written_as_the_library_takes_them() -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    assert parse(f"[{decomposed}]") == [Reference(decomposed)]


def test_a_long_text_is_read_in_one_pass() -> None:
    assert parse("\\" * 100_000) == ["\\" * 50_000]
    assert parse("[a]" * 50_000) == [Reference("a")] * 50_000


def test_the_interface_can_read_templates_without_torch_or_numpy() -> None:
    code = "import sys, softprompt.composition.template, softprompt.composition.sentence; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "numpy"} & set(loaded) == set()
