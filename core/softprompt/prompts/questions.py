"""Questions to a language model, for training and for grading: the package's own, or a user's file.

In the package's list, any eight consecutive questions are of eight different kinds. So every group that a training
step takes is varied, and the held-out questions are a fair sample of all.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from softprompt.errors import ConfigError, FileRefused, check_text, describe_error, shorten
from softprompt.system.files import read_chosen_file
from softprompt.system.paths import expand_path

MAX_QUESTIONS = 10_000
MAX_QUESTION_LENGTH = 2_000  # characters
MAX_FILE_BYTES = 32 << 20  # the most and longest questions have 20 MB in ASCII
MAX_PATH_SHOWN = 300  # characters of a path in a message
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
    path = expand_path(path)
    shown = shorten(str(path), MAX_PATH_SHOWN)
    try:
        raw = read_chosen_file(path, MAX_FILE_BYTES)
        text = raw.removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        raise FileRefused(f"{shown} is not UTF-8: byte {error.start + 1:,} is invalid. Save it as UTF-8.") from error
    except (OSError, ValueError) as error:  # ValueError: the path contains a NUL
        reason = error.strerror if isinstance(error, OSError) and error.strerror else describe_error(error)
        raise FileRefused(f"cannot read {shown}: {reason}. Use a text file with one question per line.") from error
    questions = list[str]()
    for number, line in _lines(text):
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


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number (from 1) and text of every line with a question, one at a time to save memory."""
    for number, line in enumerate(io.StringIO(text, newline=None), 1):
        question = line.strip()
        if question and not question.startswith("#"):
            yield number, question


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
