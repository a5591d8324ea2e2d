"""Resolve the soft prompts in a template, and build its reference texts and ancestry. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from softprompt.composition import template
from softprompt.composition.template import Mix, Reference, format_weight
from softprompt.errors import PromptError, wording
from softprompt.prompts.lineage import MAX_WEIGHTED_TEXTS, Ancestor, WeightedText, check_meanings

if TYPE_CHECKING:
    from softprompt.library.entry import Entry


@dataclass(frozen=True, eq=False)
class SoftPromptWord:
    """A word of a composition: a soft prompt, some of its soft tokens, or a mix of whole soft prompts.

    Attributes:
        shares: the weights of the entries in a mix; they sum to 1.
        tokens: indices of the soft tokens to use; empty in a mix.
        continues_previous: the word continues the previous one: `[v1][v2][v3]` stands for one prompt, not three.
    """

    entries: tuple[Entry, ...]
    shares: tuple[float, ...] = (1.0,)
    tokens: range = range(0)
    continues_previous: bool = False

    @property
    def token_count(self) -> int:
        return len(self.tokens) or max(entry.prompt.tokens for entry in self.entries)

    @property
    def meanings(self) -> tuple[WeightedText, ...]:
        """The weighted texts that the word stands for, or () if any of them is unknown."""
        by_entry = [
            [replace(meaning, share=meaning.share * share) for meaning in entry.prompt.reference_texts]
            for entry, share in self._weighted_entries()
        ]
        return tuple(meaning for meanings in by_entry for meaning in meanings) if all(by_entry) else ()

    @property
    def is_mixed(self) -> bool:
        """Whether the word stands for several texts: a mix, or a soft prompt trained on a mix."""
        return len(self.entries) > 1 or bool(self.entries[0].prompt.meanings)

    @property
    def display_text(self) -> str:
        """The word's prompt for display, such as `a lake*.6 + a fox*.4`."""
        if len(self.entries) == 1:
            return self.entries[0].prompt.hard_prompt
        return " + ".join(
            f"{SoftPromptWord((entry,)).parenthesized}*{_format_share(share)}"
            for entry, share in self._weighted_entries()
        )

    @property
    def parenthesized(self) -> str:
        return f"({self.display_text})" if self.is_mixed else self.display_text

    @property
    def ancestors(self) -> Iterator[Ancestor]:
        relation = "composed" if len(self.entries) == 1 else "mixed"
        return (make_ancestor(relation, entry, share) for entry, share in self._weighted_entries())

    def _weighted_entries(self) -> Iterable[tuple[Entry, float]]:
        return zip(self.entries, self.shares, strict=True)


@dataclass(frozen=True, eq=False)
class ParsedPrompt:
    """A parsed template: plain text, and soft prompts as words."""

    parts: tuple[str | SoftPromptWord, ...]

    @property
    def words(self) -> list[SoftPromptWord]:
        return [part for part in self.parts if isinstance(part, SoftPromptWord)]

    @property
    def has_text(self) -> bool:
        """Whether the prompt has words besides its soft prompts."""
        return any(isinstance(part, str) and part.strip() for part in self.parts)

    @property
    def has_known_meaning(self) -> bool:
        """Whether the hard prompts of all its soft prompts are known."""
        return all(word.meanings for word in self.words)

    @property
    def partial_names(self) -> list[str]:
        """Names of the soft prompts that are used only in part."""
        used: list[tuple[Entry, int]] = []  # each entry and the number of its soft tokens in use
        for word in self.words:
            before = used.pop()[1] if word.continues_previous else 0
            used += [(entry, before + (len(word.tokens) or entry.prompt.tokens)) for entry in word.entries]
        return [entry.prompt.name for entry, count in used if count < entry.prompt.tokens]

    def reference_texts(self, added_words: bool = True) -> tuple[WeightedText, ...]:
        """Return the sentence with hard prompts in place of the soft prompts, once per combination of mixed terms.

        The weight of a text is the product of the weights of its terms.

        Args:
            added_words: include the words besides the soft prompts.

        Returns:
            The weighted texts, or () if a prompt is unknown.

        Raises:
            PromptError: the texts are too many or too long to compare or train on.
        """
        if not self.has_known_meaning:
            return ()
        choices = [self._choices(part) for part in self.parts if added_words or isinstance(part, SoftPromptWord)]
        count = math.prod(map(len, choices))
        if count > MAX_WEIGHTED_TEXTS:  # checked before building the texts, because there may be millions
            check_meanings("", (WeightedText("", 1.0),) * min(count, 1_000_000))
        shares: dict[str, float] = {}
        for choice in product(*choices):
            text = _join_texts(meaning.text for meaning in choice)
            shares[text] = shares.get(text, 0.0) + math.prod(meaning.share for meaning in choice)
        meanings = tuple(WeightedText(text, min(1.0, share)) for text, share in shares.items())
        check_meanings("", meanings)
        return meanings

    @staticmethod
    def _choices(part: str | SoftPromptWord) -> tuple[WeightedText, ...]:
        if isinstance(part, str):
            return (WeightedText(part, 1.0),)
        return (WeightedText("", 1.0),) if part.continues_previous else part.meanings

    @property
    def display_text(self) -> str:
        """The reference text on a single line, for display. Mixes are written as sums."""
        words = [word for word in self.words if not word.continues_previous]
        if len(words) == 1 and not self.has_text:
            return _join_texts([words[0].display_text])
        texts = (
            part if isinstance(part, str) else "" if part.continues_previous else part.parenthesized
            for part in self.parts
        )
        return _join_texts(texts, separate_signs=False)

    @property
    def ancestry(self) -> tuple[Ancestor, ...]:
        """The soft prompts in the prompt, without duplicates."""
        ancestors = {
            (ancestor.relation, ancestor.id, ancestor.weight): ancestor
            for word in self.words
            if not word.continues_previous
            for ancestor in word.ancestors
        }
        return tuple(ancestors.values())


def parse_prompt(text: str, find: Callable[[str], Entry], opened: Entry | None = None) -> ParsedPrompt:
    """Parse a template and look up its soft prompts.

    Args:
        find: returns the entry with a given name, like `Library.open`.
        opened: the entry that [v1], [v2], … belong to.

    Raises:
        TemplateError: the template is invalid.
        PromptError: a soft token does not exist, or no soft prompt is open.
    """
    parts: list[str | SoftPromptWord] = []
    previous: SoftPromptWord | None = None  # the word that the next one may continue
    for part in template.parse(text):
        if isinstance(part, str):
            previous = previous if part.isspace() else None
            parts.append(part)
            continue
        if isinstance(part, Mix):
            word = SoftPromptWord(tuple(find(reference.name) for reference, _ in part.terms), tuple(part.shares))
            previous = None
        else:
            word = previous = _resolve_word(part, find, opened, previous)
        parts.append(word)
    return ParsedPrompt(tuple(parts))


def make_ancestor(relation: str, entry: Entry, weight: float = 1.0) -> Ancestor:
    prompt = entry.prompt
    return Ancestor(relation, entry.id, prompt.name, prompt.hard_prompt, prompt.model, prompt.model_fingerprint, weight)


def _resolve_word(
    part: Reference, find: Callable[[str], Entry], opened: Entry | None, previous: SoftPromptWord | None
) -> SoftPromptWord:
    if not part.name and opened is None:
        how = wording("open a soft prompt: press enter in the library, or use --with NAME", "pass one as `opened`")
        raise PromptError(
            f"[v{part.first}] is a soft token of the open soft prompt, but none is open. "
            f"Write [name:{part.first}], or {how}."
        )
    entry = find(part.name) if part.name or opened is None else opened
    count = entry.prompt.tokens
    first, last = part.first or 1, part.last or count
    if last > count:
        requested = f"{first}" if first == last else f"{first}-{last}"
        raise PromptError(
            f"{entry.prompt.name or 'the open soft prompt'} has soft tokens 1 to {count}, "
            f"but the template uses {requested}."
        )
    continues = previous is not None and previous.entries[0].id == entry.id and first > previous.tokens.stop
    return SoftPromptWord((entry,), tokens=range(first - 1, last), continues_previous=continues)


def _join_texts(texts: Iterable[str], separate_signs: bool = True) -> str:
    """Join strings into one line, adding a space where two words would run together.

    `separate_signs` does the same for punctuation that the tokenizer would merge.
    """
    line = ""
    for text in texts:
        left, right = line[-1:], text[:1]
        if (left.isalnum() and right.isalnum()) or (separate_signs and _is_sign(left) and _is_sign(right)):
            line += " "
        line += text
    return " ".join(line.split())


def _is_sign(character: str) -> bool:
    return bool(character) and not character.isalnum() and not character.isspace()


def _format_share(share: float) -> str:
    return format_weight(float(f"{share:.3g}"))
