r"""The template language: prompts with soft prompts as their words, such as `[landscape] mountain view`.

    [name]          a soft prompt of the library, by name or id
    [name:2]        its second soft token; [name:1-3] its first three
    [v1][v2]        soft tokens of the open soft prompt
    [a*.6 + b*.4]   a mix: shares are weights over their sum, and a term without a weight has 1
    \[ \] \\        the characters themselves; any other backslash is just one

`parse` and `format` are inverse to each other, but for what has several spellings: `format` writes spaces inside brackets, weights
and lone slices (`:2-2`) in one way, leaves out a weight of 1, and puts a backslash before every bracket and backslash of text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from softprompt.errors import TemplateError
from softprompt.library.names import MAX_NAME_LENGTH, is_name_character, same

MAX_TERMS = 8  # of one mix
MIN_WEIGHT, MAX_WEIGHT = 0.001, 1000.0

_WORDS = re.compile(r"(?:\\[\[\]\\]|[^\[\]])+")
_BRACKET = re.compile(r"[\[\]]")
_ESCAPED = re.compile(r"\\([\[\]\\])")
_TOKEN = re.compile(r"[vV](\d+)")
_NAME = re.compile(r"[^:*+]*")
_SLICE = re.compile(r"\s*(\d{1,4})\s*(?:-\s*(\d{1,4})\s*)?")
_WEIGHT = re.compile(
    r"\s*([0-9]{1,5}(?:\.[0-9]{0,24})?|\.[0-9]{1,24})\s*"
)  # every weight within the bounds, to the last bit


@dataclass(frozen=True)
class Reference:
    """A soft prompt, by name or id, "" being the open one; of its soft tokens those from `first` to `last`, from 1, None for all."""

    name: str
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Mix:
    """Two or more whole soft prompts, each with its weight."""

    terms: tuple[tuple[Reference, float], ...]

    @property
    def shares(self) -> list[float]:
        """Of each term, in their order; together 1."""
        whole = sum(weight for _, weight in self.terms)
        return [weight / whole for _, weight in self.terms]


Part = str | Reference | Mix


def parse(text: str) -> list[Part]:
    """The parts of a template, no two texts next to each other; raises TemplateError, which knows the column."""
    parts: list[Part] = []
    at = 0
    while at < len(text):
        if words := _WORDS.match(text, at):
            parts.append(_ESCAPED.sub(r"\1", words[0]))
            at = words.end()
            continue
        if text[at] == "]":
            raise TemplateError("this ] has no partner: [name] stands for a soft prompt, \\] for the character", at + 1)
        closing = _BRACKET.search(text, at + 1)
        if closing is None or closing[0] == "[":
            raise TemplateError("this [ has no partner: [name] stands for a soft prompt, \\[ for the character", at + 1)
        parts.append(_Inside(text, at + 1, closing.start()).part())
        at = closing.end()
    return parts


def format(parts: Iterable[Part]) -> str:
    """The template of such parts."""
    return "".join(
        re.sub(r"[\\\[\]]", r"\\\g<0>", part) if isinstance(part, str) else f"[{_written(part)}]" for part in parts
    )


def _written(part: Reference | Mix) -> str:
    if isinstance(part, Mix):
        return " + ".join(
            one.name + ("" if weight == 1 else f"*{written_weight(weight)}") for one, weight in part.terms
        )
    if not part.name:
        return f"v{part.first}"
    if part.first is None:
        return part.name
    return f"{part.name}:{part.first}" if part.first == part.last else f"{part.name}:{part.first}-{part.last}"


def written_weight(weight: float) -> str:
    """The shortest number that is this weight: .6 rather than 0.6."""
    return repr(float(weight)).removeprefix("0").removesuffix(".0")


class _Inside:
    """Reads what stands between two brackets: text[at:end]."""

    def __init__(self, text: str, at: int, end: int) -> None:
        self.text, self.at, self.end = text, at, end

    def part(self) -> Reference | Mix:
        terms: list[tuple[Reference, float]] = []
        begins, weighted = [], 0
        while True:
            one, begin = self._reference()
            begins.append(begin)
            sliced = self.at
            weight = self._weight() if self._sign() == "*" else None
            weighted = weighted or (sliced if weight is not None else 0)
            terms.append((one, 1.0 if weight is None else weight))
            if self._sign() != "+":
                break
            self.at += 1
        if self.at < self.end:
            self._refuse("what is expected here is + and another name, or ]")
        if len(terms) == 1:
            if weighted:
                self._refuse(
                    "a weight is a share of a mix, such as [landscape*.6 + night*.4]; alone it would only scale the vectors, "
                    "which hardly changes what they mean",
                    weighted,
                )
            return terms[0][0]
        self._check_mix([one for one, _ in terms], begins)
        return Mix(tuple(terms))

    def _check_mix(self, names: list[Reference], begins: list[int]) -> None:
        if len(names) > MAX_TERMS:
            self._refuse(f"a mix has up to {MAX_TERMS} terms", begins[MAX_TERMS])
        for i, one in enumerate(names):
            if one.first is not None:
                self._refuse(
                    "a mix is of whole soft prompts, such as [landscape + night]: a soft token has no meaning of its own",
                    begins[i],
                )
            if any(same(one.name) == same(other.name) for other in names[:i]):
                self._refuse("this one is in the mix already: a larger weight gives it a larger share", begins[i])

    def _sign(self) -> str:
        return self.text[self.at : min(self.at + 1, self.end)]

    def _reference(self) -> tuple[Reference, int]:
        """The next one, and where it begins."""
        raw = _NAME.match(self.text, self.at, self.end)
        assert raw is not None  # it matches nothing too
        name, begin = raw[0].strip(), self.at + len(raw[0]) - len(raw[0].lstrip())
        if not name:
            self._refuse(
                "a name is expected: [name], [name:2], [name:1-3] or a mix such as [name*.6 + other*.4]", raw.end()
            )
        for i, char in enumerate(name):
            if not is_name_character(char):
                self._refuse(
                    f"a name in [name] is of letters, digits, '-', '_' and spaces; {char!r} is none of them", begin + i
                )
        if len(name) > MAX_NAME_LENGTH:
            self._refuse(f"a name in [name] has up to {MAX_NAME_LENGTH} characters, and this one {len(name)}", begin)
        self.at = raw.end()
        if token := _TOKEN.fullmatch(name):
            if len(token[1]) > 4 or int(token[1]) < 1 or self._sign() == ":":
                self._refuse(
                    "the soft tokens of the open soft prompt are [v1], [v2] and so on, one in a bracket", begin
                )
            return Reference("", int(token[1]), int(token[1])), begin
        if self._sign() != ":":
            return Reference(name), begin
        found = _SLICE.match(self.text, self.at + 1, self.end)
        if found is None:
            self._refuse("the number of a soft token is expected: [name:2], or [name:1-3] for three", self.at + 1)
        first, last = int(found[1]), int(found[2] or found[1])
        if not 1 <= first <= last:
            self._refuse("soft tokens are counted from 1, the first one first: [name:2] or [name:1-3]", found.start(1))
        self.at = found.end()
        if self._sign() not in ("", "*", "+"):
            self._refuse("what is expected here is ], after a number such as [name:2] or two such as [name:1-3]")
        return Reference(name, first, last), begin

    def _weight(self) -> float:
        found = _WEIGHT.match(self.text, self.at + 1, self.end)
        if found is None or not MIN_WEIGHT <= float(found[1]) <= MAX_WEIGHT:
            self._refuse(
                f"a weight is expected: a number from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, such as .6 or 2", self.at + 1
            )
        self.at = found.end()
        return float(found[1])

    def _refuse(self, why: str, at: int | None = None) -> NoReturn:
        raise TemplateError(why, (self.at if at is None else at) + 1)
