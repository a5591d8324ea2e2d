"""Check names, tags and notes, and make a name from a hard prompt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable

from softprompt.errors import BadName, check_text

MAX_NAME_LENGTH = 80
MAX_TAG_LENGTH, MAX_TAGS, MAX_NOTE_LENGTH = 40, 50, 10_000
_RESERVED = re.compile(r"v\d+", re.IGNORECASE)
# words that say little about the content of a prompt
_COMMON = frozenset(
    "a an and are as at be by for from has in into is it its of on or over that the this to under up with "
    "image photo photograph picture painting drawing illustration art style detailed highly quality".split()
)


def name_key(name: str) -> str:
    """Return the form in which names are compared, which ignores case and Unicode composition."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_letter_or_digit(char: str) -> bool:
    """Return whether the character is a letter, a digit or a combining mark in any script."""
    return unicodedata.category(char)[0] in "LM" or char.isdecimal()


def is_name_character(char: str) -> bool:
    """Return whether a name may contain the character."""
    return _is_letter_or_digit(char) or char in "-_ "


def check_name(name: str) -> str:
    """Return the name without surrounding spaces. Raises BadName if it is invalid."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name:
        raise BadName("the name is empty. Use letters, digits, '-', '_' and spaces, such as 'red landscape'.")
    if len(name) > MAX_NAME_LENGTH:
        raise BadName(f"the name has {len(name)} characters; the limit is {MAX_NAME_LENGTH}")
    bad = next((c for c in name if not is_name_character(c)), None)
    if bad is not None:
        raise BadName(f"the name contains {bad!r}. Use letters, digits, '-', '_' and spaces.")
    if _RESERVED.fullmatch(name):
        raise BadName(
            f"the name {name} is reserved: [{name}] is a token of the open soft prompt. Choose a name like 'my {name}'."
        )
    return name


def name_from_prompt(hard_prompt: str, taken: Container[str]) -> str:
    """Return a name of up to three distinctive words from the hard prompt.

    A number is added if the `name_key` of the name is in `taken`.
    """
    words = ["".join(filter(_is_letter_or_digit, word)) for word in hard_prompt.lower().split()]
    chosen = [word for word in words if word and word not in _COMMON] or [word for word in words if word]
    stem = unicodedata.normalize("NFC", "-".join(chosen[:3])[: MAX_NAME_LENGTH - 8]) or "prompt"
    if _RESERVED.fullmatch(stem):
        stem = f"prompt-{stem}"
    return make_unique(stem, taken)


def clean_name(text: str) -> str:
    """Return a valid name close to `text`, or "" if no character can be used."""
    cleaned = "".join(
        char if _is_letter_or_digit(char) or char in "-_ " else "-"
        for char in unicodedata.normalize("NFC", text[:1000])
    )
    name = re.sub(r" +", " ", re.sub(r" *-[- ]*", "-", cleaned)).strip("-_ ")[: MAX_NAME_LENGTH - 8].strip("-_ ")
    return f"prompt-{name}" if _RESERVED.fullmatch(name) else name


def make_unique(name: str, taken: Container[str]) -> str:
    """Return the name, or the first of name-2, name-3, … whose `name_key` is not in `taken`."""
    candidate, number = name, 1
    while name_key(candidate) in taken:
        number += 1
        candidate = f"{name[: MAX_NAME_LENGTH - 8]}-{number}"
    return candidate


def as_tag_list(tags: str | Iterable[str]) -> list[str]:
    """Return the tags as a list. A string is one tag, not a sequence of letters."""
    return [tags] if isinstance(tags, str) else list(tags)


def check_tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    """Return the tags stripped, sorted and unique. Raises BadName if a tag is invalid or there are too many."""
    unique = {name_key(tag): tag for tag in map(_check_tag, as_tag_list(tags))}
    if len(unique) > MAX_TAGS:
        raise BadName(f"a soft prompt can have at most {MAX_TAGS} tags, but there are {len(unique)}")
    return tuple(unique[key] for key in sorted(unique))


def _check_tag(tag: str) -> str:
    tag = unicodedata.normalize("NFC", tag).strip()
    bad = next((c for c in tag if not (_is_letter_or_digit(c) or c in "-_.:")), None)
    if not tag or bad is not None or len(tag) > MAX_TAG_LENGTH:
        raise BadName(
            f"{tag[: 2 * MAX_TAG_LENGTH]!r} is not a valid tag. "
            f"Use up to {MAX_TAG_LENGTH} letters, digits, '-', '_', '.' and ':'."
        )
    return tag


def check_note(note: str) -> str:
    """Return the note without surrounding spaces. Raises BadName if it is too long."""
    if len(note := note.strip()) > MAX_NOTE_LENGTH:
        raise BadName(f"the note has {len(note):,} characters; the limit is {MAX_NOTE_LENGTH:,}")
    return check_text("note", note, BadName)
