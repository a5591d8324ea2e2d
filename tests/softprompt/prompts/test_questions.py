"""Questions for training and grading: the package's list, a user's file, and how they are split."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.errors import ConfigError, FileRefused
from softprompt.prompts import questions
from softprompt.prompts.questions import MAX_HELD_OUT, load_questions, read_questions, split_questions


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def test_the_package_has_200_short_questions() -> None:
    shipped = load_questions()
    assert len(shipped) == 200
    assert load_questions() is shipped
    for question in shipped:
        assert question.isascii()
        assert question.isprintable()
        assert question == question.strip()
        assert not question.startswith("#")
        assert 4 <= len(question.split()) <= 16, question


def test_no_two_questions_of_the_package_are_nearly_the_same() -> None:
    for a, b in combinations(load_questions(), 2):
        assert len(words(a) & words(b)) / len(words(a) | words(b)) <= 0.5, (a, b)


def test_a_file_has_one_question_per_line(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_bytes("\ufeffWho are you?\r\n\r\n# a comment\n  What is 2 + 2?  \r \n  #2\nWo wohnt Björn?".encode())
    (tmp_path / "link.txt").symlink_to(path)
    expected = ("Who are you?", "What is 2 + 2?", "Wo wohnt Björn?")
    assert read_questions(path) == read_questions(str(tmp_path / "link.txt")) == expected


def test_the_longest_questions_and_the_most_that_are_allowed_are_read(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("é" * 2_000 + "\n" + "Why?\n" * 9_999, encoding="utf-8")
    assert len(read_questions(path)) == 10_000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "contains no questions. Write one per line"),
        (b"\n \n# why?\n", "contains no questions"),
        (b"Why?\nWho \xff?", "is not UTF-8: byte 10 is invalid. Save it as UTF-8."),
        ("Why?".encode("utf-16"), "is not UTF-8: byte 1 is invalid"),
        (b"Why?\nWho\0?", "the question on line 2 of .* contains a NUL character. Remove it."),
        (b"Why?\n\n" + b"x" * 2_001, "the question on line 3 of .* has 2,001 characters. Use at most 2,000 characters"),
        (b"Why?\n" * 10_001, "has more than 10,000 questions, the limit. Use fewer."),
    ],
)
def test_a_file_that_is_no_list_of_questions_is_rejected(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "questions.txt"
    path.write_bytes(content)
    with pytest.raises(FileRefused, match=reason) as caught:
        read_questions(path)
    assert str(path) in str(caught.value)


def write_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(questions.MAX_FILE_BYTES + 1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Path.exists, "No such file or directory"),
        (Path.mkdir, "it is not a regular file"),
        (os.mkfifo, "it is not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "it is not a regular file"),
        (lambda path: path.symlink_to(path), "symbolic links"),
        (write_large, "it has 33,554,433 bytes; at most 33,554,432 are allowed"),
    ],
)
def test_a_file_that_cannot_be_read_is_rejected(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    path = tmp_path / "questions.txt"
    make(path)
    with pytest.raises(FileRefused, match=f"cannot read .*{reason}. Use a text file with one question per line."):
        read_questions(path)


@pytest.mark.parametrize("path", ["", "~nobody-of-this-name/questions.txt", "a\0b", "x" * 5_000, "a\nb", "\udcff"])
def test_a_strange_path_is_an_error_in_one_line(path: str) -> None:
    with pytest.raises(FileRefused, match="cannot read") as caught:
        read_questions(path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


def test_the_last_quarter_is_held_out_and_other_seeds_hold_out_others() -> None:
    shipped = load_questions()
    assert split_questions(shipped) == (shipped[:150], shipped[150:])
    assert split_questions(shipped, seed=1) == (shipped[:100] + shipped[150:], shipped[100:150])
    assert split_questions(shipped, seed=4) == split_questions(shipped)
    assert len({split_questions(shipped, seed)[1] for seed in range(4)}) == 4


@pytest.mark.parametrize(("count", "held_out"), [(2, 1), (3, 1), (8, 2), (11, 2), (200, 50), (1_000, 50)])
def test_a_quarter_is_held_out_at_least_1_and_at_most_50(count: int, held_out: int) -> None:
    training, held = split_questions([f"What is {i}?" for i in range(count)])
    assert (len(training), len(held)) == (count - held_out, held_out)


@given(st.lists(st.integers(0, 300), min_size=2, max_size=400), st.integers(-5, 10**6))
def test_no_held_out_question_is_trained_on(numbers: list[int], seed: int) -> None:
    given_questions = [f"What is {number}?" for number in numbers]
    distinct = list(dict.fromkeys(given_questions))
    if len(distinct) < 2:
        return
    training, held_out = split_questions(given_questions, seed)
    assert split_questions(distinct, seed) == (training, held_out)
    assert 1 <= len(held_out) <= MAX_HELD_OUT
    assert sorted([*training, *held_out]) == sorted(distinct)
    assert list(training) == [question for question in distinct if question not in held_out]


@pytest.mark.parametrize(("given_questions", "count"), [((), 0), (("Why?",), 1), (("Why?", "Why?"), 1)])
def test_a_single_question_cannot_be_split(given_questions: tuple[str, ...], count: int) -> None:
    with pytest.raises(ConfigError, match=f"different questions is {count}. Use at least 2: one to train on"):
        split_questions(given_questions)
