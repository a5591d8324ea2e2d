"""The guides in `softprompt_tui/docs`: load, name and search them. `docs` and the guides screen share this module."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from softprompt.errors import ConfigError

FOLDER = Path(__file__).parents[1] / "docs"
GUIDES = {
    "first-steps": "Train a first soft prompt, and read what the figures say.",
    "interface": "Panes, keys, themes and notifications of the full-screen interface.",
    "choosing-tokens": "How many soft tokens a prompt needs, and what else to set.",
    "composing": "Use soft prompts as words of new prompts, and mix them.",
    "real-models": "Train for the text encoder that you use, on a CPU or a GPU.",
    "image-programs": "Export to Stable Diffusion programs, and import their files.",
    "batches": "Train thousands of prompts from a file.",
    "worker": "Train in the background, and stop, pause and order the runs.",
    "library-files": "Where everything is stored, the trash, backups and other machines.",
    "python-api": "Ten recipes, and the reference of every public name.",
    "commands": "All commands in one table, JSON, exit codes, completion.",
    "how-it-works": "The method in ten points, and how to measure it.",
    "troubleshooting": "What to do when something fails or looks wrong.",
}  # name: what it is about, in the order of reading
REFERENCE = "python-api"  # long, and seldom what a search is for
MAX_EXCERPT_LENGTH = 160  # characters
_HEADING = re.compile(r"(#{1,4}) (.+)")
_MARKUP = re.compile(r"\[([^\]]+)\]\([^)]*\)|[*`#|]+")


@dataclass(frozen=True)
class Section:
    """A heading of a guide with the text below it.

    Attributes:
        line: 1-based number of the heading's line.
        text: Markdown, with the heading.
    """

    guide: str
    heading: str
    level: int
    line: int
    text: str


@dataclass(frozen=True)
class Passage:
    """What a search has found: a section, and the line of it that fits best."""

    section: Section
    excerpt: str


def find_guide(name: str) -> str:
    """Return the guide with this name, or the only one whose name begins so.

    Raises:
        ConfigError: there is no such guide. The message lists close matches.
    """
    key = name.casefold().strip().removesuffix(".md")
    if key in GUIDES:
        return key
    begins = [guide for guide in GUIDES if key and guide.startswith(key)]
    if len(begins) == 1:
        return begins[0]
    close = begins or get_close_matches(key, GUIDES, 3, 0.5)
    hint = f"Close matches: {', '.join(close)}" if close else f"The guides: {', '.join(GUIDES)}"
    raise ConfigError(f"there is no guide {name!r}. {hint}. `softprompt-tui docs --search WORDS` searches all of them.")


@cache
def read_guide(name: str) -> str:
    """Return the Markdown of a guide."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


@cache
def read_sections(name: str) -> tuple[Section, ...]:
    """Split a guide at its headings."""
    return tuple(_split(name, read_guide(name).splitlines()))


def _split(guide: str, lines: Sequence[str]) -> Iterator[Section]:
    start, level, heading, is_code = 0, 1, "", False
    for number, line in enumerate(lines):
        is_code ^= line.lstrip().startswith("```")
        if not is_code and (match := _HEADING.fullmatch(line)):
            if number:
                yield Section(guide, heading, level, start + 1, "\n".join(lines[start:number]))
            start, level, heading = number, len(match[1]), match[2]
    yield Section(guide, heading, level, start + 1, "\n".join(lines[start:]))


def search_guides(text: str) -> list[Passage]:
    """Find the sections that contain all words of `text`.

    Those with the words in their heading are first, then those with many of them in one line, then those with them
    often. The start of a word is enough. Case and accents do not matter.
    """
    words = [re.compile(rf"(?<!\w){re.escape(word)}") for word in fold(text).split()]
    found: list[tuple[tuple[int, int, bool, int], Passage]] = []
    for section in (section for guide in GUIDES for section in read_sections(guide)):
        heading = fold(f"{section.heading}\n{GUIDES[section.guide] if section.line == 1 else ''}")
        folded = fold(f"{section.guide}\n{section.text}\n{heading}")
        if words and all(word.search(folded) for word in words):
            in_heading = sum(bool(word.search(heading)) for word in words)
            in_line, excerpt = _best_line(section, words)
            count = sum(len(word.findall(folded)) for word in words)
            rank = (-in_heading, -in_line, section.guide == REFERENCE, -count)
            found.append((rank, Passage(section, excerpt)))
    return [passage for _, passage in sorted(found, key=lambda scored: scored[0])]


def _best_line(section: Section, words: Sequence[re.Pattern[str]]) -> tuple[int, str]:
    """Return the line with most of the words, without Markdown, and how many words it has."""
    lines = [plain for line in section.text.splitlines()[1:] if (plain := _plain(line))]
    counts = [sum(bool(word.search(fold(line))) for word in words) for line in lines]
    best = max(range(len(lines)), key=counts.__getitem__, default=None)
    if best is None:
        return 0, ""
    line = lines[best]
    if len(line) > MAX_EXCERPT_LENGTH:
        start = min((match.start() for word in words if (match := word.search(fold(line)))), default=0)
        start = max(0, min(start - MAX_EXCERPT_LENGTH // 4, len(line) - MAX_EXCERPT_LENGTH))
        cut = line[start : start + MAX_EXCERPT_LENGTH].strip()
        line = f"{'… ' * bool(start)}{cut}{' …' * (start + MAX_EXCERPT_LENGTH < len(line))}"
    return counts[best], line


def _plain(line: str) -> str:
    if line.lstrip().startswith("```") or not line.strip(" |-:"):
        return ""
    return " ".join(_MARKUP.sub(lambda match: match[1] or " ", line).split()).removeprefix("- ")


def fold(text: str) -> str:
    """Return text for comparison: lower case without accents. Its length does not change for text in NFC."""
    return "".join(_fold_char(char) for char in text)


def _fold_char(char: str) -> str:
    if char.isascii():
        return char.lower()
    return unicodedata.normalize("NFD", char)[0].lower()[:1]
