"""File names that a program finds again in a prompt, where the file's name is the word to type.

`safe_stem` leaves letters, digits, '-' and '_', so no bracket, colon, comma or bar is left. What remains is words and underscores:

- AUTOMATIC1111 and Forge, modules/prompt_parser.py: `re_AND` and `re_break` split a prompt at the words AND and BREAK, in capitals, also
  beside a hyphen, before names are looked for. modules/textual_inversion/textual_inversion.py then compares CLIP's tokens, of which
  punctuation side by side makes one: `fox_,` does not hold those of `fox_`.
- kohya-ss/sd-scripts, gen_img.py: BREAK is replaced wherever it stands, in a longer word too; " AND " splits a prompt. Names become tokens,
  which must be new to CLIP's vocabulary.
- InvokeAI, app/util/ti_utils.py: `<name>` of ASCII letters, digits, and `., _-`. Its dynamic prompts take `__name__` for a wildcard.
- ComfyUI, comfy/sd1_clip.py: a name behind `embedding:` ends at white space; nothing in a safe stem is syntax.
"""

from __future__ import annotations

import re
from functools import lru_cache

from softprompt.formats.writers.files import NAMELESS, safe_stem

_A1111 = re.compile(r"\b(?:AND|BREAK)\b")
_SYNTAX = {"a1111": _A1111, "a1111-png": _A1111, "kohya": re.compile(r"BREAK|\bAND\b")}
_WILDCARD = re.compile(r"__.+__")


def typeable_stem(to: str, stem: str, tokens: int) -> str:
    """Return `stem`, or one like it that is found in a prompt of the program `to`; `tokens` is the number of soft tokens.

    A stem that InvokeAI cannot find for its letters stays as it is: see `objection`.
    """
    stem = safe_stem(stem)
    if to.startswith("a1111"):
        stem = safe_stem(stem.strip("_-") or NAMELESS)
    if syntax := _SYNTAX.get(to):
        in_small = syntax.sub(lambda word: word[0].lower(), stem)
        stem = f"sp-{in_small}" if syntax.fullmatch(stem) else in_small
    if to == "invokeai" and _WILDCARD.search(stem):
        stem = re.sub("_{2,}", "_", stem)
    if to == "kohya" and _in_vocabulary(stem, tokens):
        stem = f"sp-{stem}"
    return stem


def objection(to: str, stem: str, tokens: int) -> str:
    """Return why a prompt of the program `to` would not find the file `stem`, in words that follow the program's name; "" if it would."""
    if to == "invokeai" and not stem.isascii():
        return "finds only names of ASCII letters in a prompt"
    if typeable_stem(to, stem, tokens) == stem:
        return ""
    if stem != safe_stem(stem):
        return "reads some of its characters as the end of a word, or as syntax"
    if (syntax := _SYNTAX.get(to)) and (word := syntax.search(stem)):
        return f"reads {word[0]} in a prompt as syntax"
    if to == "invokeai":
        return "reads __…__ in a prompt as a wildcard"
    if to == "kohya":
        return "refuses names that are in CLIP's vocabulary"
    return "does not find a name that ends or begins with _ beside a comma or a quote"


def _in_vocabulary(stem: str, tokens: int) -> bool:
    """Whether kohya could not add the name, or those that it makes for the further vectors, to CLIP's vocabulary."""
    return not vocabulary().isdisjoint({stem, *(f"{stem}{i}" for i in range(1, tokens))})


@lru_cache(maxsize=1)
def vocabulary() -> frozenset[str]:
    """CLIP's tokens as its vocabulary spells them, which is what programs look a new word up in."""
    from softprompt.encoders.clip.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    return frozenset(map(tokenizer.symbols, range(len(tokenizer))))
