"""Find image-program syntax in a prompt: weights, LoRA tags, wildcards, infotexts.

A text encoder knows no such syntax and treats it as words. The programs (AUTOMATIC1111, Forge, ComfyUI, InvokeAI, the
Dynamic Prompts extension) remove the syntax before the text reaches the encoder, so a prompt copied from one of them
has a different meaning here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, cast

from softprompt.errors import option

SyntaxKind = Literal["weight", "escape", "keyword", "lora", "embedding", "choice", "wildcard", "infotext"]
KIND_DESCRIPTIONS: dict[SyntaxKind, str] = {
    "weight": "weights such as (word:1.3)",
    "escape": "escaped brackets such as \\(",
    "keyword": "keywords such as BREAK",
    "lora": "LoRA tags such as <lora:name:1>",
    "embedding": "embeddings such as embedding:name",
    "choice": "choices such as {a|b}",
    "wildcard": "wildcards such as __name__",
}

_ATOM = re.compile(
    r"(?P<escape>\\[()\[\]{}])"
    r"|(?P<lora><(?:lora|lyco|lyc|loha|lokr|hypernet|hypernetwork):[^<>\n]{1,200}>)"
    r"|(?P<embedding>\bembedding:[\w./-]{1,200})"
    r"|(?P<wildcard>__[^\W_][\w ./*-]{0,100}?__)"
    r"|(?P<keyword>\b(?:BREAK|AND|ADDCOMM|ADDROW|ADDCOL|ADDBASE)\b)"
    r"|(?P<bracket>[()\[\]{}])"
)
# a digit before the colon makes it a time or a ratio: (at 12:30), (16:9)
_WEIGHT_AT_END = re.compile(r"(?<!\d):\s*[+-]?(?:\d(?:\.\d{0,6})?|\.\d{1,6})\s*\Z")
_SCHEDULE = re.compile(r"(?P<first>[^:]*):[^:]*:\s*\d{1,4}(?:\.\d{0,6})?\s*\Z")
_CHOICE_PREFIX = re.compile(r"\s*(?:\d{1,3}(?:-\d{1,3})?\$\$)?(?:[^|$]{0,20}\$\$)?(?:\d{0,4}\.?\d{0,6}::)?")
# a negative prompt, or the settings that all these programs write after it
_INFOTEXT = re.compile(r"(?:\A|(?<=\s))(?:Negative prompt:|Steps:\s*\d{1,6}\s*,\s*[A-Z][\w ]{1,40}:)")
_CLOSES = {"(": ")", "[": "]", "{": "}"}
MAX_DEPTH = 32  # nested brackets; deeper ones count as punctuation, which keeps the search linear
MAX_WEIGHT_LENGTH = 24  # characters in ":1.3", including spaces


@dataclass(frozen=True)
class SyntaxSpan:
    """One piece of syntax, `text[start:end]`, and the plain text that replaces it."""

    kind: SyntaxKind
    start: int
    end: int
    plain: str = ""


@dataclass(frozen=True)
class PreparedPrompt:
    """A prompt ready for training, and the kinds of syntax in the original text."""

    text: str
    kinds: frozenset[SyntaxKind] = frozenset()


def prepare_prompt(text: str, plain: bool = False) -> PreparedPrompt:
    """Cut off the negative prompt and settings of an infotext. With `plain`, remove all other syntax too."""
    spans = find_syntax(text)
    kinds = frozenset(span.kind for span in spans)
    parts, at = list[str](), 0
    for span in spans:
        if plain or span.kind == "infotext":
            parts += text[at : span.start], span.plain
            at = span.end
    prepared = "".join([*parts, text[at:]])
    return PreparedPrompt(_tidy(prepared) if plain and kinds else prepared.strip(), kinds)


def describe_syntax(kinds: Iterable[SyntaxKind], plain: bool, setting: str = "", several: bool = False) -> str:
    """Describe on one line the syntax in a prompt and what happened to it. Returns "" if there is none.

    Args:
        plain: whether the syntax was removed.
        setting: what removes it, if not the setting `plain`.
        several: whether `kinds` comes from several prompts.
    """
    present = set(kinds)
    has, was = ("some prompts have", "some prompts were") if several else ("the prompt has", "the prompt was")
    sentences = []
    if names := [name for kind, name in KIND_DESCRIPTIONS.items() if kind in present]:
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        setting = setting or option("plain", True)
        action = "they were removed" if plain else f"the model reads them as words. Use {setting} to remove them"
        sentences.append(f"{has} {listed}: {action}")
    if "infotext" in present:
        sentences.append(f"{was} cut before the negative prompt or the settings")
    return "; ".join(sentences)


def find_syntax(text: str) -> list[SyntaxSpan]:
    """Return every piece of syntax, in text order and without overlaps."""
    infotext = _INFOTEXT.search(text)
    end = infotext.start() if infotext else len(text)
    spans = [SyntaxSpan("infotext", end, len(text))] if infotext else []
    is_all_caps = not any(character.islower() for character in text[:end])  # then AND is an ordinary word
    open_brackets: list[tuple[str, int]] = []
    for match in _ATOM.finditer(text, 0, end):
        kind, start, stop = match.lastgroup, match.start(), match.end()
        if kind == "bracket":
            spans += _match_bracket(text, start, open_brackets)
        elif kind == "escape":
            spans.append(SyntaxSpan("escape", start, stop, match[0][1:]))
        elif kind == "keyword":
            if not is_all_caps:
                spans.append(SyntaxSpan("keyword", start, stop, " "))
        else:
            spans.append(SyntaxSpan(cast(SyntaxKind, kind), start, stop))
    return _without_overlaps(spans)


def _match_bracket(text: str, at: int, open_brackets: list[tuple[str, int]]) -> list[SyntaxSpan]:
    """Push an opening bracket. For a closing bracket, return the spans of syntax that the pair forms."""
    bracket = text[at]
    if bracket in _CLOSES:
        if len(open_brackets) == MAX_DEPTH:
            del open_brackets[0]
        open_brackets.append((bracket, at))
        return []
    if not open_brackets or _CLOSES[open_brackets[-1][0]] != bracket:
        open_brackets.clear()  # unmatched brackets are punctuation
        return []
    opening, start = open_brackets.pop()
    inside = text[start + 1 : at]
    tail = max(start + 1, at - MAX_WEIGHT_LENGTH)
    if opening != "(" and "|" in inside:
        prefix = _CHOICE_PREFIX.match(inside)
        assert prefix is not None  # the pattern also matches the empty string
        first_end = start + 1 + inside.index("|", prefix.end())
        return [SyntaxSpan("choice", start, start + 1 + prefix.end()), SyntaxSpan("choice", first_end, at + 1)]
    if opening == "[" and (schedule := _SCHEDULE.match(inside)):
        first_option_end = start + 1 + schedule.end("first")
        return [SyntaxSpan("choice", start, start + 1), SyntaxSpan("choice", first_option_end, at + 1)]
    if opening != "{" and (weight := _WEIGHT_AT_END.search(text[tail:at])):
        return [SyntaxSpan("weight", start, start + 1), SyntaxSpan("weight", tail + weight.start(), at + 1)]
    # one pair of brackets is punctuation, a double pair is emphasis
    if opening != "{" and text[start - 1 : start] == opening and text[at + 1 : at + 2] == bracket:
        return [SyntaxSpan("weight", start - 1, start + 1), SyntaxSpan("weight", at, at + 2)]
    return []


def _without_overlaps(spans: list[SyntaxSpan]) -> list[SyntaxSpan]:
    """Sort spans and merge overlapping ones, so that nothing is removed twice."""
    merged: list[SyntaxSpan] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if merged and span.start < merged[-1].end:
            last = merged[-1]
            merged[-1] = SyntaxSpan(last.kind, last.start, max(last.end, span.end), last.plain)
        else:
            merged.append(span)
    return merged


def _tidy(text: str) -> str:
    """Clean up after removed syntax: repeated spaces and commas, and commas at either end."""
    text = re.sub(r"[ \t]+", " ", text)
    text = re.sub(r"(?: ?, ?){2,}", ", ", text)
    text = re.sub(r" ([,.;:!?])", r"\1", text)
    return text.strip(" ,\t\r\n")
