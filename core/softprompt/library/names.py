"""Names of soft prompts, tags and notes: what is allowed, and a name made from the hard prompt where the user gives none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container, Iterable

from softprompt.errors import BadName, check_text

MAX_NAME_LENGTH = 80
MAX_TAG_LENGTH, MAX_TAGS, MAX_NOTE_LENGTH = 40, 50, 10_000
_RESERVED = re.compile(r"v\d+", re.IGNORECASE)
# words that say little about what a prompt shows
_COMMON = frozenset(
    "a an and are as at be by for from has in into is it its of on or over that the this to under up with "
    "image photo photograph picture painting drawing illustration art style detailed highly quality".split()
)


def same(name: str) -> str:
    """The form in which names are compared: case and composition of letters do not matter."""
    return unicodedata.normalize("NFC", name).casefold()


def _letter(char: str) -> bool:
    """A letter or digit of any script, or a mark that belongs to one."""
    return unicodedata.category(char)[0] in "LM" or char.isdecimal()


def is_name_character(char: str) -> bool:
    """Whether a name may have it inside."""
    return _letter(char) or char in "-_ "


def check_name(name: str) -> str:
    """The name, tidied of outer spaces; raises BadName for one that cannot be given."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name:
        raise BadName("the name is empty: use letters, digits, '-', '_' and spaces, such as 'red landscape'")
    if len(name) > MAX_NAME_LENGTH:
        raise BadName(f"the name has {len(name)} characters; at most {MAX_NAME_LENGTH} fit")
    bad = next((c for c in name if not is_name_character(c)), None)
    if bad is not None:
        raise BadName(f"the name has {bad!r} in it; letters, digits, '-', '_' and spaces are allowed")
    if _RESERVED.fullmatch(name):
        raise BadName(
            f"the name {name} is reserved: [{name}] means a token of the open soft prompt. Choose another, such as 'my {name}'"
        )
    return name


def name_for(hard_prompt: str, taken: Container[str]) -> str:
    """A name of up to three telling words of the hard prompt, numbered where it is taken (`taken` as `same` gives them)."""
    words = ["".join(filter(_letter, word)) for word in hard_prompt.lower().split()]
    telling = [word for word in words if word and word not in _COMMON] or [word for word in words if word]
    stem = unicodedata.normalize("NFC", "-".join(telling[:3])[: MAX_NAME_LENGTH - 8]) or "prompt"
    if _RESERVED.fullmatch(stem):
        stem = f"prompt-{stem}"
    return numbered(stem, taken)


def tidied(text: str) -> str:
    """A name that can be given, as near as can be to a text from outside; "" where nothing of it can stand in a name."""
    kept = "".join(
        char if _letter(char) or char in "-_ " else "-" for char in unicodedata.normalize("NFC", text[:1000])
    )
    name = re.sub(r" +", " ", re.sub(r" *-[- ]*", "-", kept)).strip("-_ ")[: MAX_NAME_LENGTH - 8].strip("-_ ")
    return f"prompt-{name}" if _RESERVED.fullmatch(name) else name


def numbered(name: str, taken: Container[str]) -> str:
    """The name, or the first of name-2, name-3, … that is not in `taken`."""
    free, number = name, 1
    while same(free) in taken:
        number += 1
        free = f"{name[: MAX_NAME_LENGTH - 8]}-{number}"
    return free


def listed_tags(tags: str | Iterable[str]) -> list[str]:
    """Return the tags as a list: one text is one tag, not its letters."""
    return [tags] if isinstance(tags, str) else list(tags)


def check_tags(tags: str | Iterable[str]) -> tuple[str, ...]:
    """The tags, tidied, each once, in order of the alphabet; raises BadName for one that cannot be given, or too many."""
    kept = {same(tag): tag for tag in map(_tag, listed_tags(tags))}
    if len(kept) > MAX_TAGS:
        raise BadName(f"these are {len(kept)} tags; a soft prompt can have {MAX_TAGS}")
    return tuple(kept[key] for key in sorted(kept))


def _tag(tag: str) -> str:
    tag = unicodedata.normalize("NFC", tag).strip()
    bad = next((c for c in tag if not (_letter(c) or c in "-_.:")), None)
    if not tag or bad is not None or len(tag) > MAX_TAG_LENGTH:
        raise BadName(
            f"{tag[: 2 * MAX_TAG_LENGTH]!r} is no tag: letters, digits, '-', '_', '.' and ':' are allowed, up to {MAX_TAG_LENGTH} of them"
        )
    return tag


def check_note(note: str) -> str:
    """The note without outer spaces; raises BadName for one that is too long."""
    if len(note := note.strip()) > MAX_NOTE_LENGTH:
        raise BadName(f"the note has {len(note):,} characters; at most {MAX_NOTE_LENGTH:,} fit")
    return check_text("note", note, BadName)
