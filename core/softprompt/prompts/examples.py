"""Examples that a soft prompt is tuned on: pairs of an input and the output that it should get.

A file of them is JSON Lines: one object per line with the keys `input` and `output`. Other keys are ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from softprompt.argument_types import describe
from softprompt.errors import ArgumentError, ConfigError, FileRefused, check_text, describe_error, shorten
from softprompt.prompts.results import ExampleSource
from softprompt.prompts.text_file import read_text_file
from softprompt.prompts.validation import check_texts
from softprompt.prompts.visible_text import sanitize

MAX_EXAMPLES = 10_000
MAX_EXAMPLE_LENGTH = 20_000  # characters of an input or an output
MAX_FILE_BYTES = 64 << 20
MAX_NAME_SHOWN = 100  # characters of a file's name in a summary
HELD_OUT_SHARE = 4  # hold out one example in this many
MIN_TRAINING, MIN_HELD_OUT, MAX_HELD_OUT = 2, 2, 200
KEYS = ("input", "output")
FORM = 'Write one object per line, such as {"input": "The tap drips.", "output": "plumbing"}.'


@dataclass(frozen=True)
class Example:
    """An input to a language model and the output that it should get.

    Attributes:
        origin: where it comes from, for messages: "line 7 of tickets.jsonl" or "example 7".
    """

    input: str
    output: str
    origin: str = field(default="", compare=False)


@dataclass(frozen=True)
class ExampleList:
    """Examples and where they come from."""

    examples: tuple[Example, ...]
    source: ExampleSource


@dataclass(frozen=True)
class ExampleSet:
    """The examples of a run: some to train on, and others, held out, to grade on."""

    training: ExampleList
    held_out: ExampleList

    @property
    def summary(self) -> str:
        """What a soft prompt that is tuned on these examples stands for, such as "64 examples of tickets.jsonl"."""
        source = self.training.source
        return f"{source.count} examples of {source.file}" if source.file else f"{source.count} examples"

    @property
    def digest(self) -> str:
        """Digest of all texts."""
        parts = (_as_lines(part.examples) for part in (self.training, self.held_out))
        return hashlib.sha256(b"\n".join(parts)).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """Return the examples as JSON values."""
        return {"training": _list_as_dict(self.training), "held_out": _list_as_dict(self.held_out)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExampleSet:
        """Create a set from the values of `as_dict`. Raises KeyError, TypeError or ValueError if they are invalid."""
        return cls(_list_from_dict(values["training"]), _list_from_dict(values["held_out"]))


def read_examples(path: Path | str) -> ExampleList:
    """Return the examples of a JSON Lines file. Blank lines are skipped.

    Raises:
        FileRefused: the file cannot be read, is not UTF-8, is too large, has no or too many examples, or a line that is
            no example or repeats the input of another.
    """
    file = read_text_file(path, MAX_FILE_BYTES, "Use a file with one JSON object per line.")
    name = shorten(sanitize(file.path.name), MAX_NAME_SHOWN)
    examples = _check_list(
        (_parse_line(line, f"line {number:,} of {name}") for number, line in file.lines()), file.shown, FileRefused
    )
    return ExampleList(examples, ExampleSource(name, hashlib.sha256(file.raw).hexdigest(), len(examples)))


def list_examples(name: str, items: Iterable[Any]) -> ExampleList:
    """Return examples from (input, output) pairs or mappings with these keys.

    Args:
        name: the argument's name, for messages.

    Raises:
        ArgumentError: an item is no such pair, is empty or too long, or repeats the input of another; or there are no
            or too many items.
    """
    examples = _check_list((_parse_item(item, name, number) for number, item in enumerate(items, 1)), name)
    return ExampleList(examples, ExampleSource("", hashlib.sha256(_as_lines(examples)).hexdigest(), len(examples)))


def split_examples(given: ExampleList, held_out: ExampleList | None = None) -> ExampleSet:
    """Hold out some examples for grading: `held_out`, or a quarter of those given.

    A quarter is at least MIN_HELD_OUT and at most MAX_HELD_OUT examples. They are chosen by their digests, so that
    neither the order of a file nor examples added later change much. Both parts keep their order.

    Raises:
        ConfigError: there are too few examples, or one of `held_out` has the input of another to train on.
    """
    if held_out is not None:
        _check_count(given, MIN_TRAINING, "to train on")
        _check_count(held_out, MIN_HELD_OUT, "to grade on")
        origins = {example.input: example.origin for example in given.examples}
        for example in held_out.examples:
            if example.input in origins:
                raise ConfigError(
                    f"{example.origin} is held out, but {origins[example.input]} has the same input, and training must "
                    "not see it. Remove one of them."
                )
        return ExampleSet(given, held_out)
    _check_count(given, MIN_TRAINING + MIN_HELD_OUT, "to train and to grade on")
    total = len(given.examples)
    count = min(max(MIN_HELD_OUT, total // HELD_OUT_SHARE), MAX_HELD_OUT)
    chosen = set(sorted(given.examples, key=lambda example: hashlib.sha256(_as_lines([example])).digest())[:count])
    parts = (
        tuple(example for example in given.examples if example not in chosen),
        tuple(example for example in given.examples if example in chosen),
    )
    return ExampleSet(*(ExampleList(part, replace(given.source, count=len(part))) for part in parts))


def _check_count(given: ExampleList, minimum: int, purpose: str) -> None:
    count = len(given.examples)
    if count < minimum:
        raise ConfigError(
            f"the number of examples {purpose} is {count}{f' in {given.source.file}' if given.source.file else ''}. "
            f"Use at least {minimum}."
        )


def _parse_line(line: str, origin: str) -> Example:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise FileRefused(f"{origin} is not JSON: {error.msg} at character {error.pos + 1:,}. {FORM}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, or thousands of brackets
        raise FileRefused(f"{origin} is not JSON: {describe_error(error)}. {FORM}") from error
    if not isinstance(value, dict):
        raise FileRefused(f"{origin} is not a JSON object. {FORM}")
    for key in KEYS:
        if key not in value:
            raise FileRefused(f"{origin} has no {key!r}. {FORM}")
        if not isinstance(value[key], str):
            raise FileRefused(f"the {key!r} of {origin} is not a string. {FORM}")
    return _check_example(value["input"], value["output"], origin, FileRefused)


def _parse_item(item: Any, name: str, number: int) -> Example:
    if isinstance(item, Mapping):
        item = tuple(item.get(key) for key in KEYS)
    if not isinstance(item, tuple | list) or len(item) != 2 or not all(isinstance(text, str) for text in item):
        raise ArgumentError(
            f"{name} contains {describe(item)} as item {number:,}; expected (input, output) pairs of strings, such as "
            "('The tap drips.', 'plumbing')"
        )
    return _check_example(item[0], item[1], f"example {number:,}", ArgumentError)


def _check_example(
    input_text: str, output: str, origin: str, error: type[FileRefused] | type[ArgumentError]
) -> Example:
    texts = []
    for key, text in zip(KEYS, (input_text, output), strict=True):
        text = check_text(f"{key!r} of {origin}", str.__str__(text), error).strip()
        if not text:
            raise error(f"the {key!r} of {origin} is empty. Write a text, or remove the example.")
        if len(text) > MAX_EXAMPLE_LENGTH:
            raise error(f"the {key!r} of {origin} has {len(text):,} characters. Use at most {MAX_EXAMPLE_LENGTH:,}.")
        texts.append(text)
    return Example(texts[0], texts[1], origin)


def _check_list(
    examples: Iterable[Example], name: str, error: type[FileRefused] | type[ArgumentError] = ArgumentError
) -> tuple[Example, ...]:
    """Return the examples. Raises `error` if there are none or too many, or an input occurs twice."""
    by_input: dict[str, Example] = {}
    for example in examples:
        if (first := by_input.get(example.input)) is not None:
            raise error(f"{example.origin} repeats the input of {first.origin}. Remove one of them.")
        if len(by_input) == MAX_EXAMPLES:
            raise error(f"{name} has more than {MAX_EXAMPLES:,} examples, the limit. Use fewer.")
        by_input[example.input] = example
    if not by_input:
        raise error(f"{name} contains no examples. {FORM}" if error is FileRefused else f"{name} contains no examples")
    return tuple(by_input.values())


def _as_lines(examples: Sequence[Example]) -> bytes:
    """Return examples as a JSON Lines file."""
    pairs = ({"input": example.input, "output": example.output} for example in examples)
    return "".join(f"{json.dumps(pair, ensure_ascii=False)}\n" for pair in pairs).encode()


def _list_as_dict(values: ExampleList) -> dict[str, Any]:
    pairs = [[example.input, example.output] for example in values.examples]
    return {**vars(values.source), "pairs": pairs}


def source_from_dict(values: Mapping[str, Any]) -> ExampleSource:
    """Return the source with these values. Raises KeyError, TypeError or ValueError if they are invalid."""
    check_texts("the name and the digest of the examples' file", {key: values[key] for key in ("file", "sha256")})
    if type(values["count"]) is not int or values["count"] < 1:
        raise TypeError("the number of examples must be a positive integer")
    return ExampleSource(values["file"], values["sha256"], values["count"])


def _list_from_dict(values: Mapping[str, Any]) -> ExampleList:
    source = source_from_dict(values)
    return ExampleList(list_examples("pairs", values["pairs"]).examples, source)
