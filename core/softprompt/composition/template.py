r"""The template language: prompts with soft prompts as words, such as `[landscape] mountain view`.

    [name]          a soft prompt of the library, by name or id
    [name:2]        its second soft token; [name:1-3]: its first three
    [v1][v2]        soft tokens of the open soft prompt
    [a*.6 + b*.4]   a mix: weights are divided by their sum; the default weight is 1
    \[ \] \\        the characters themselves; any other backslash is literal

`format` is the inverse of `parse`, except that it always writes the canonical spelling: fixed spaces in brackets, short
weights, `:2` for `:2-2`, no weight of 1, and a backslash before every literal bracket and backslash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from softprompt.errors import TemplateError
from softprompt.library.names import MAX_NAME_LENGTH, is_name_character, name_key
from softprompt.prompts.lineage import check_meanings

MAX_TERMS = 8  # in one mix
MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000.0

_WORDS = re.compile(r"(?:\\[\[\]\\]|[^\[\]])+")
_BRACKET = re.compile(r"[\[\]]")
_ESCAPED = re.compile(r"\\([\[\]\\])")
_TOKEN = re.compile(r"[vV](\d+)")
_NAME = re.compile(r"[^:*+]*")
_SLICE = re.compile(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?")
# enough digits for the exact value of every weight within the bounds
_WEIGHT = re.compile(r"\s*([0-9]{1,5}(?:\.[0-9]{0,24})?|\.[0-9]{1,24})\s*")


@dataclass(frozen=True)
class Reference:
    """A soft prompt, or a range of its soft tokens.

    Attributes:
        name: name or id, or "" for the open soft prompt.
        first, last: the range of soft tokens, counted from 1 and inclusive, or None for all.
    """

    name: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Mix:
    """Two or more whole soft prompts with their weights."""

    terms: tuple[tuple[Reference, float], ...]

    @property
    def shares(self) -> list[float]:
        """The weights of the terms, divided by their sum."""
        total = sum(weight for _, weight in self.terms)
        return [weight / total for _, weight in self.terms]


Part = str | Reference | Mix


def parse(text: str) -> list[Part]:
    """Parse a template into its parts.

    Raises:
        TemplateError: the template is invalid. The message gives the column of the error.
        PromptError: the template is too long.
    """
    check_meanings(text, ())
    parts: list[Part] = []
    at = 0
    while at < len(text):
        if words := _WORDS.match(text, at):
            parts.append(_ESCAPED.sub(r"\1", words[0]))
            at = words.end()
            continue
        if text[at] == "]":
            raise TemplateError(
                "this ] has no opening [. Write [name] for a soft prompt, or \\] for a plain bracket.", at + 1
            )
        closing = _BRACKET.search(text, at + 1)
        if closing is None or closing[0] == "[":
            raise TemplateError(
                "this [ has no closing ]. Write [name] for a soft prompt, or \\[ for a plain bracket.", at + 1
            )
        parts.append(_BracketParser(text, at + 1, closing.start()).parse())
        at = closing.end()
    return parts


def format(parts: Iterable[Part]) -> str:
    """Return the template text of `parts`."""
    return "".join(
        re.sub(r"[\\\[\]]", r"\\\g<0>", part) if isinstance(part, str) else f"[{_format_part(part)}]" for part in parts
    )


def _format_part(part: Reference | Mix) -> str:
    if isinstance(part, Mix):
        return " + ".join(
            reference.name + ("" if weight == 1 else f"*{format_weight(weight)}") for reference, weight in part.terms
        )
    if not part.name:
        return f"v{part.first}"
    if part.first is None:
        return part.name
    return f"{part.name}:{part.first}" if part.first == part.last else f"{part.name}:{part.first}-{part.last}"


def format_weight(weight: float) -> str:
    """Return the shortest spelling of a weight: .6 instead of 0.6."""
    return repr(float(weight)).removeprefix("0").removesuffix(".0")


class _BracketParser:
    """Parse the text between two brackets, text[at:end]."""

    def __init__(self, text: str, at: int, end: int) -> None:
        self.text, self.at, self.end = text, at, end

    def parse(self) -> Reference | Mix:
        terms: list[tuple[Reference, float]] = []
        starts, weight_at = [], 0
        while True:
            reference, start = self._parse_reference()
            starts.append(start)
            reference_end = self.at
            weight = self._parse_weight() if self._next_character() == "*" else None
            weight_at = weight_at or (reference_end if weight is not None else 0)
            terms.append((reference, 1.0 if weight is None else weight))
            if self._next_character() != "+":
                break
            self.at += 1
        if self.at < self.end:
            self._fail("expected + and another name, or ].")
        if len(terms) == 1:
            if weight_at:
                self._fail(
                    "a weight only works in a mix, such as [landscape*.6 + night*.4]. On its own, it would only scale "
                    "the vectors, which barely changes what they mean.",
                    weight_at,
                )
            return terms[0][0]
        self._check_mix([reference for reference, _ in terms], starts)
        return Mix(tuple(terms))

    def _check_mix(self, references: list[Reference], starts: list[int]) -> None:
        if len(references) > MAX_TERMS:
            self._fail(f"a mix has at most {MAX_TERMS} terms. Remove the terms from here on.", starts[MAX_TERMS])
        for i, reference in enumerate(references):
            if reference.first is not None:
                self._fail(
                    "a mix takes whole soft prompts, such as [landscape + night], "
                    "because a soft token has no meaning of its own.",
                    starts[i],
                )
            if any(name_key(reference.name) == name_key(other.name) for other in references[:i]):
                self._fail("this soft prompt is already in the mix. Give it a larger weight there instead.", starts[i])

    def _next_character(self) -> str:
        return self.text[self.at : min(self.at + 1, self.end)]

    def _parse_reference(self) -> tuple[Reference, int]:
        """Return the next reference and its start position."""
        raw = _NAME.match(self.text, self.at, self.end)
        assert raw is not None  # the pattern also matches the empty string
        name, start = raw[0].strip(), self.at + len(raw[0]) - len(raw[0].lstrip())
        if not name:
            self._fail(
                "expected a name: [name], [name:2], [name:1-3] or a mix such as [name*.6 + other*.4].", raw.end()
            )
        for i, character in enumerate(name):
            if not is_name_character(character):
                self._fail(
                    f"{character!r} is not allowed in a name. Use letters, digits, '-', '_' and spaces.", start + i
                )
        if len(name) > MAX_NAME_LENGTH:
            self._fail(f"the name has {len(name)} characters; at most {MAX_NAME_LENGTH} are allowed.", start)
        self.at = raw.end()
        if token := _TOKEN.fullmatch(name):
            if len(token[1]) > 4 or int(token[1]) < 1 or self._next_character() == ":":
                self._fail("the soft tokens of the open soft prompt are [v1], [v2] and so on, one per bracket.", start)
            return Reference("", int(token[1]), int(token[1])), start
        if self._next_character() != ":":
            return Reference(name), start
        numbers = _SLICE.match(self.text, self.at + 1, self.end)
        if numbers is None:
            self._fail(
                "expected the number of a soft token, as in [name:2], or a range, as in [name:1-3].", self.at + 1
            )
        first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        if not 1 <= first <= last:
            self._fail("soft tokens count from 1, and ranges ascend, as in [name:2] or [name:1-3].", numbers.start(1))
        self.at = numbers.end()
        if self._next_character() not in ("", "*", "+"):
            self._fail("expected ] after the number or range, as in [name:2] or [name:1-3].")
        return Reference(name, first, last), start

    def _parse_weight(self) -> float:
        match = _WEIGHT.match(self.text, self.at + 1, self.end)
        if match is None or not MIN_WEIGHT <= float(match[1]) <= MAX_WEIGHT:
            self._fail(f"expected a weight from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, such as .6 or 2.", self.at + 1)
        self.at = match.end()
        return float(match[1])

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        raise TemplateError(message, (self.at if at is None else at) + 1)
