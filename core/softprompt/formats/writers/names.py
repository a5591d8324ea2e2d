"""File names that work as words in the prompts of other programs.

`safe_stem` keeps only letters, digits, '-' and '_'. Some words and underscores still cause problems:

- AUTOMATIC1111 and Forge, modules/prompt_parser.py: `re_AND` and `re_break` split a prompt at AND and BREAK in
  capitals, even next to a hyphen, before names are matched. modules/textual_inversion/textual_inversion.py then
  compares CLIP tokens, and adjacent punctuation forms one token: `fox_,` does not contain the tokens of `fox_`.
- kohya-ss/sd-scripts, gen_img.py: BREAK is replaced everywhere, even inside a word, and " AND " splits a prompt. Names
  become tokens, which must be new to CLIP's vocabulary.
- InvokeAI, app/util/ti_utils.py: `<name>` may contain ASCII letters, digits and `., _-`. Its dynamic prompts treat
  `__name__` as a wildcard.
- ComfyUI, comfy/sd1_clip.py: a name after `embedding:` ends at white space. No safe stem contains syntax.
"""

from __future__ import annotations

import re
from functools import lru_cache

from softprompt.formats.writers.files import DEFAULT_STEM, safe_stem

_A1111 = re.compile(r"\b(?:AND|BREAK)\b")
_SYNTAX = {"a1111": _A1111, "a1111-png": _A1111, "kohya": re.compile(r"BREAK|\bAND\b")}
_WILDCARD = re.compile(r"__.+__")


def typeable_stem(to: str, stem: str, tokens: int) -> str:
    """Return `stem`, or a similar stem that works in prompts for the program `to`. `tokens`: number of soft tokens.

    Letters that InvokeAI does not support stay (see `objection`).
    """
    stem = safe_stem(stem)
    if to.startswith("a1111"):
        stem = safe_stem(stem.strip("_-") or DEFAULT_STEM)
    if syntax := _SYNTAX.get(to):
        lowered = syntax.sub(lambda word: word[0].lower(), stem)
        stem = f"sp-{lowered}" if syntax.fullmatch(stem) else lowered
    if to == "invokeai" and _WILDCARD.search(stem):
        stem = re.sub("_{2,}", "_", stem)
    if to == "kohya" and _clashes_with_vocabulary(stem, tokens):
        stem = f"sp-{stem}"
    return stem


def objection(to: str, stem: str, tokens: int) -> str:
    """Return why `stem` does not work in prompts for the program `to`, phrased to follow its name, or ""."""
    if to == "invokeai" and not stem.isascii():
        return "only supports file names with ASCII letters in prompts"
    if typeable_stem(to, stem, tokens) == stem:
        return ""
    if stem != safe_stem(stem):
        return "treats some of its characters as the end of a word or as syntax"
    if (syntax := _SYNTAX.get(to)) and (word := syntax.search(stem)):
        return f"treats {word[0]} in prompts as syntax"
    if to == "invokeai":
        return "treats __…__ in prompts as a wildcard"
    if to == "kohya":
        return "rejects names that are in CLIP's vocabulary"
    return "does not find names that start or end with _ next to a comma or quote"


def _clashes_with_vocabulary(stem: str, tokens: int) -> bool:
    """Return whether CLIP's vocabulary already has a token that kohya would add: the name, or name1, name2, …"""
    return not clip_vocabulary().isdisjoint({stem, *(f"{stem}{i}" for i in range(1, tokens))})


@lru_cache(maxsize=1)
def clip_vocabulary() -> frozenset[str]:
    """Return CLIP's tokens as spelled in its vocabulary, in which other programs look up new words."""
    from softprompt.encoders.clip.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    return frozenset(map(tokenizer.symbols, range(len(tokenizer))))
