"""A template with its soft prompts found: what the sentence means written out, and what it is made from. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from softprompt.composition import template
from softprompt.composition.template import Mix, Reference, written_weight
from softprompt.errors import PromptError
from softprompt.prompts.lineage import MAX_WEIGHTED_TEXTS, Ancestor, WeightedText, check_meanings

if TYPE_CHECKING:
    from softprompt.library.entry import Entry


@dataclass(frozen=True, eq=False)
class SoftPromptWord:
    """A soft prompt as a word, of which some tokens may be meant, or a mix of whole ones, each with its share.

    `goes_on`: it continues the one before, as in `[v1][v2][v3]`, which is one hard prompt and not three.
    """

    entries: tuple[Entry, ...]
    shares: tuple[float, ...] = (1.0,)
    tokens: range = range(0)
    goes_on: bool = False

    @property
    def meanings(self) -> tuple[WeightedText, ...]:
        """Its hard prompts, with their shares; () where one is not known."""
        each = [
            [replace(one, share=one.share * share) for one in entry.prompt.reference_texts]
            for entry, share in self._parts()
        ]
        return tuple(one for meanings in each for one in meanings) if all(each) else ()

    @property
    def is_sum(self) -> bool:
        """Whether it means several texts together."""
        return len(self.entries) > 1 or bool(self.entries[0].prompt.meanings)

    @property
    def readable(self) -> str:
        """Its hard prompt as people read it: `a lake*.6 + a fox*.4`."""
        if len(self.entries) == 1:
            return self.entries[0].prompt.hard_prompt
        return " + ".join(f"{SoftPromptWord((entry,)).enclosed}*{_short(share)}" for entry, share in self._parts())

    @property
    def enclosed(self) -> str:
        return f"({self.readable})" if self.is_sum else self.readable

    @property
    def ancestors(self) -> Iterator[Ancestor]:
        relation = "composed" if len(self.entries) == 1 else "mixed"
        return (ancestor(relation, entry, share) for entry, share in self._parts())

    def _parts(self) -> Iterable[tuple[Entry, float]]:
        return zip(self.entries, self.shares, strict=True)


@dataclass(frozen=True, eq=False)
class ParsedPrompt:
    """The parts of a template: text, and soft prompts as words."""

    parts: tuple[str | SoftPromptWord, ...]

    @property
    def words(self) -> list[SoftPromptWord]:
        return [part for part in self.parts if isinstance(part, SoftPromptWord)]

    @property
    def has_text(self) -> bool:
        """Whether words are added to its soft prompts."""
        return any(isinstance(part, str) and part.strip() for part in self.parts)

    @property
    def known(self) -> bool:
        """Whether all its hard prompts are."""
        return all(word.meanings for word in self.words)

    @property
    def in_part(self) -> list[str]:
        """Names of the soft prompts of which not every token stands in it."""
        seen: list[tuple[Entry, int]] = []  # and how many of its tokens
        for word in self.words:
            before = seen.pop()[1] if word.goes_on else 0
            seen += [(entry, before + (len(word.tokens) or entry.prompt.tokens)) for entry in word.entries]
        return [entry.prompt.name for entry, count in seen if count < entry.prompt.tokens]

    def reference_texts(self, added_words: bool = True) -> tuple[WeightedText, ...]:
        """The sentence with the hard prompts in their places, or these alone; where it has mixes, once for each choice of their terms.

        The share of each is the product of its terms'. () where a hard prompt is not known. Raises PromptError for more than can be
        compared or trained on.
        """
        if not self.known:
            return ()
        places = [self._choices(part) for part in self.parts if added_words or isinstance(part, SoftPromptWord)]
        count = math.prod(map(len, places))
        if count > MAX_WEIGHTED_TEXTS:  # said before they are made: there may be millions
            check_meanings("", (WeightedText("", 1.0),) * min(count, 1_000_000))
        made: dict[str, float] = {}
        for choice in product(*places):
            text = _joined(one.text for one in choice)
            made[text] = made.get(text, 0.0) + math.prod(one.share for one in choice)
        meanings = tuple(WeightedText(text, min(1.0, share)) for text, share in made.items())
        check_meanings("", meanings)
        return meanings

    @staticmethod
    def _choices(part: str | SoftPromptWord) -> tuple[WeightedText, ...]:
        if isinstance(part, str):
            return (WeightedText(part, 1.0),)
        return (WeightedText("", 1.0),) if part.goes_on else part.meanings

    @property
    def readable(self) -> str:
        """The sentence written out in one line, mixes as sums; for people."""
        words = [word for word in self.words if not word.goes_on]
        if len(words) == 1 and not self.has_text:
            return _joined([words[0].readable])
        said = (part if isinstance(part, str) else "" if part.goes_on else part.enclosed for part in self.parts)
        return _joined(said, apart=False)

    @property
    def ancestry(self) -> tuple[Ancestor, ...]:
        """The soft prompts that stand in it, each once."""
        found = {
            (one.relation, one.id, one.weight): one for word in self.words if not word.goes_on for one in word.ancestors
        }
        return tuple(found.values())


def read_sentence(text: str, find: Callable[[str], Entry], opened: Entry | None = None) -> ParsedPrompt:
    """A template with the entries that `find` gives for its names; [v1] is a token of `opened`.

    Raises TemplateError, PromptError for a soft token that there is not, and what `find` raises.
    """
    parts: list[str | SoftPromptWord] = []
    before: SoftPromptWord | None = None  # which the next may go on from
    for part in template.parse(text):
        if isinstance(part, str):
            before = before if part.isspace() else None
            parts.append(part)
            continue
        if isinstance(part, Mix):
            word = SoftPromptWord(tuple(find(one.name) for one, _ in part.terms), tuple(part.shares))
            before = None
        else:
            word = before = _word(part, find, opened, before)
        parts.append(word)
    return ParsedPrompt(tuple(parts))


def ancestor(relation: str, entry: Entry, weight: float = 1.0) -> Ancestor:
    made = entry.prompt
    return Ancestor(relation, entry.id, made.name, made.hard_prompt, made.model, made.model_fingerprint, weight)


def _word(
    part: Reference, find: Callable[[str], Entry], opened: Entry | None, before: SoftPromptWord | None
) -> SoftPromptWord:
    if not part.name and opened is None:
        raise PromptError(
            f"[v{part.first}] is a token of the open soft prompt, and none is open: write [name:{part.first}], or open one (enter in the library, --with NAME)"
        )
    entry = find(part.name) if part.name or opened is None else opened
    count = entry.prompt.tokens
    first, last = part.first or 1, part.last or count
    if last > count:
        asked = f"{first}" if first == last else f"{first}-{last}"
        raise PromptError(
            f"{entry.prompt.name or 'the open soft prompt'} has soft tokens 1 to {count}; {asked} was asked for"
        )
    goes_on = before is not None and before.entries[0].id == entry.id and first > before.tokens.stop
    return SoftPromptWord((entry,), tokens=range(first - 1, last), goes_on=goes_on)


def _joined(texts: Iterable[str], apart: bool = True) -> str:
    """The texts as one line, with a space where two would else grow into one word; `apart`: or into one sign, to the tokenizer."""
    line = ""
    for text in texts:
        ends, begins = line[-1:], text[:1]
        if (ends.isalnum() and begins.isalnum()) or (apart and _is_sign(ends) and _is_sign(begins)):
            line += " "
        line += text
    return " ".join(line.split())


def _is_sign(char: str) -> bool:
    return bool(char) and not char.isalnum() and not char.isspace()


def _short(share: float) -> str:
    return written_weight(float(f"{share:.3g}"))
