"""Files and lists of examples, and the split into those to train on and those to grade on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from softprompt.errors import ArgumentError, ConfigError, FileRefused
from softprompt.prompts.examples import (
    MAX_EXAMPLE_LENGTH,
    MAX_HELD_OUT,
    Example,
    ExampleSet,
    list_examples,
    read_examples,
    split_examples,
)

LINE = '{"input": "a", "output": "b"}'


def pairs(count: int) -> list[tuple[str, str]]:
    return [(f"input {number}", f"output {number % 3}") for number in range(count)]


def write(folder: Path, *lines: str, name: str = "tickets.jsonl") -> Path:
    path = folder / name
    path.write_text("\n".join(lines), encoding="utf-8", newline="")
    return path


def test_a_file_has_one_example_per_line(tmp_path: Path) -> None:
    path = tmp_path / "tickets.jsonl"
    raw = (
        b'\xef\xbb\xbf{"input": " The tap drips. ", "output": "plumbing", "id": 7}\r\n'
        b"\n"
        b'  {"output": "\xc3\xa9\\nx", "input": "b"}'
    )
    path.write_bytes(raw)
    given = read_examples(path)
    assert given.examples == (Example("The tap drips.", "plumbing"), Example("b", "é\nx"))
    assert [example.origin for example in given.examples] == ["line 1 of tickets.jsonl", "line 3 of tickets.jsonl"]
    assert (given.source.file, given.source.count) == ("tickets.jsonl", 2)
    assert given.source.sha256 == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("input,output", r"line 2 of tickets.jsonl is not JSON: Expecting value at character 1\. Write one object"),
        ('{"input": "x"', "line 2 of tickets.jsonl is not JSON: Expecting ',' delimiter at character 14"),
        ("[" * 100_000, "line 2 of tickets.jsonl is not JSON"),
        ('{"input": ' + "9" * 5000 + "}", "line 2 of tickets.jsonl is not JSON"),
        ('["x", "y"]', "line 2 of tickets.jsonl is not a JSON object"),
        ('{"input": "x"}', "line 2 of tickets.jsonl has no 'output'"),
        ('{"input": "x", "output": 3}', "the 'output' of line 2 of tickets.jsonl is not a string"),
        ('{"input": "  ", "output": "y"}', "the 'input' of line 2 of tickets.jsonl is empty"),
        ('{"input": "x", "output": "\\ud800"}', "the 'output' of line 2 of tickets.jsonl is not valid UTF-8"),
        ('{"input": "x\\u0000", "output": "y"}', "the 'input' of line 2 of tickets.jsonl contains a NUL"),
        (
            f'{{"input": "{"x" * (MAX_EXAMPLE_LENGTH + 1)}", "output": "y"}}',
            "has 20,001 characters. Use at most",
        ),
        ('{"input": " a", "output": "c"}', "line 2 of tickets.jsonl repeats the input of line 1 of tickets.jsonl"),
    ],
)
def test_a_line_that_is_no_example_is_named(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match=message) as raised:
        read_examples(write(tmp_path, LINE, line))
    assert len(str(raised.value)) < 400


def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileRefused, match=r"contains no examples. Write one object per line"):
        read_examples(write(tmp_path, "", " "))
    with pytest.raises(FileRefused, match=r"cannot read .*none: No such file"):
        read_examples(tmp_path / "none")
    with pytest.raises(FileRefused, match=r"cannot read .*: it is not a regular file. Use a file with one JSON object"):
        read_examples(tmp_path)
    (tmp_path / "latin").write_bytes(b'{"input": "\xe9", "output": "b"}')
    with pytest.raises(FileRefused, match="is not UTF-8: byte 12 is invalid"):
        read_examples(tmp_path / "latin")


def test_a_strange_file_name_is_shown_as_plain_text(tmp_path: Path) -> None:
    path = write(tmp_path, LINE, name="a\x1b[31m\nb\udcff.jsonl")
    assert read_examples(path).source.file == "a␛[31m␊b\\udcff.jsonl"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([("a", "b"), ("c",)], r"examples contains a tuple as item 2; expected \(input, output\) pairs"),
        ([("a", 1)], "as item 1"),
        (["ab"], "as item 1"),
        ([{"input": "a"}], "as item 1"),
        ([("a", " ")], "the 'output' of example 1 is empty"),
        ([("a", "b"), ("a", "c")], "example 2 repeats the input of example 1"),
        ([], "examples contains no examples"),
    ],
)
def test_a_list_of_something_else_is_refused(items: list[Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        list_examples("examples", items)


def test_a_list_has_the_digest_of_the_file_with_the_same_pairs(tmp_path: Path) -> None:
    given = list_examples("examples", [("a", "é"), {"input": "b", "output": "c"}])
    lines = [json.dumps({"input": each.input, "output": each.output}, ensure_ascii=False) for each in given.examples]
    assert read_examples(write(tmp_path, *lines, "")).source.sha256 == given.source.sha256


def test_a_quarter_is_held_out_whatever_the_order() -> None:
    split = split_examples(list_examples("examples", pairs(40)))
    assert (split.training.source.count, split.held_out.source.count) == (30, 10)
    assert not set(split.training.examples) & set(split.held_out.examples)
    reversed_split = split_examples(list_examples("examples", pairs(40)[::-1]))
    assert set(reversed_split.held_out.examples) == set(split.held_out.examples)
    # more examples move only a few
    longer = split_examples(list_examples("examples", pairs(44)))
    assert len(set(longer.held_out.examples) - set(split.held_out.examples)) <= 11 - 8
    assert split.summary == "30 examples"


@pytest.mark.parametrize(("count", "held_out"), [(4, 2), (9, 2), (12, 3), (2000, MAX_HELD_OUT)])
def test_the_held_out_part_has_bounds(count: int, held_out: int) -> None:
    assert split_examples(list_examples("examples", pairs(count))).held_out.source.count == held_out


def test_too_few_examples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"to train and to grade on is 3. Use at least 4\."):
        split_examples(list_examples("examples", pairs(3)))
    given, other = list_examples("examples", pairs(4)), list_examples("held_out", [("x", "y"), ("z", "y")])
    assert split_examples(given, other).held_out == other
    with pytest.raises(ConfigError, match=r"to grade on is 1 in one.jsonl. Use at least 2"):
        split_examples(given, read_examples(write(tmp_path, LINE, name="one.jsonl")))
    with pytest.raises(ConfigError, match="example 2 is held out, but example 1 has the same input"):
        split_examples(given, list_examples("held_out", [("x", "y"), ("input 0", "y")]))


def test_a_set_survives_json_and_invalid_values_are_refused() -> None:
    given = split_examples(list_examples("examples", pairs(9)))
    values = json.loads(json.dumps(given.as_dict()))
    assert ExampleSet.from_dict(values) == given
    assert ExampleSet.from_dict(values).digest == given.digest
    for part in ({"pairs": [["a"]]}, {"pairs": 3}, {"count": 0}, {"sha256": 1}, {"file": None}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            ExampleSet.from_dict(values | {"training": values["training"] | part})
    with pytest.raises(TypeError):
        ExampleSet.from_dict(values | {"held_out": []})
