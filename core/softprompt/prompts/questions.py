"""Questions to a language model, for training and for grading: the package's own, or a user's file.

In the package's list, any eight consecutive questions are of eight different kinds. So every group that a training
step takes is varied, and the held-out questions are a fair sample of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from softprompt.errors import ConfigError, FileRefused, check_text
from softprompt.prompts.text_file import read_text_file

MAX_QUESTIONS = 10_000
MAX_QUESTION_LENGTH = 2_000  # characters
MAX_FILE_BYTES = 32 << 20  # the most and longest questions have 20 MB in ASCII
MAX_HELD_OUT = 50
HELD_OUT_SHARE = 4  # hold out one question in this many


@cache
def load_questions() -> tuple[str, ...]:
    """Return the package's 200 questions."""
    text = (files("softprompt") / "data" / "questions.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def read_questions(path: Path | str) -> tuple[str, ...]:
    """Return the questions of a text file: one per line, without blank lines and lines that start with `#`.

    Raises:
        FileRefused: the file cannot be read, is not UTF-8, is too large, or has no questions, too many, or one that is
            too long.
    """
    file = read_text_file(path, MAX_FILE_BYTES, "Use a text file with one question per line.")
    shown = file.shown
    questions = list[str]()
    for number, line in file.lines():
        if line.startswith("#"):
            continue
        question = check_text(f"question on line {number:,} of {shown}", line, FileRefused)
        if len(question) > MAX_QUESTION_LENGTH:
            raise FileRefused(
                f"the question on line {number:,} of {shown} has {len(question):,} characters. Use at most "
                f"{MAX_QUESTION_LENGTH:,} characters per line."
            )
        if len(questions) == MAX_QUESTIONS:
            raise FileRefused(f"{shown} has more than {MAX_QUESTIONS:,} questions, the limit. Use fewer.")
        questions.append(question)
    if not questions:
        raise FileRefused(
            f"{shown} contains no questions. Write one per line; lines that start with # are comments and do not count."
        )
    return tuple(questions)


def split_questions(questions: Sequence[str], seed: int = 0) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split questions into some for training and some, held out, for grading. Both keep their order.

    A quarter is held out, at least 1 and at most MAX_HELD_OUT. Repeated questions count once, so that no held-out
    question is also trained on.

    Args:
        seed: which questions are held out: the last ones for 0, the ones before them for 1, and so on.

    Raises:
        ConfigError: there are fewer than two different questions.
    """
    distinct = tuple(dict.fromkeys(questions))
    if len(distinct) < 2:
        raise ConfigError(
            f"the number of different questions is {len(distinct)}. Use at least 2: one to train on and one to grade."
        )
    count = min(max(1, len(distinct) // HELD_OUT_SHARE), MAX_HELD_OUT)
    end = len(distinct) - count * (seed % (len(distinct) // count))
    return distinct[: end - count] + distinct[end:], distinct[end - count : end]
