"""The guides in `softprompt_tui/docs`: load, name and search them. `docs` and the guides screen share this module."""

from __future__ import annotations

import math
import re
import shlex
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
    "language-models": "Compress a system prompt for a language model, or tune on examples.",
    "language-models-elsewhere": "Use a language model's soft prompt in transformers, PEFT, vLLM and SGLang.",
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
MAX_SUGGESTIONS = 3  # guides that an error about an unknown topic names
MIN_FOUND = 10  # sections that a search finds, if so many have some of the words
REFERENCE_SHARE, NUMBER_SHARE = 0.75, 0.25  # of the score of others
MIN_SHARE = 0.5  # of the best section's score, for a section that lacks a word
# other words for the same thing: each is searched for as well
SYNONYMS = {
    "oom": ("out of memory",),
    "vram": ("memory",),
    "ram": ("memory",),
    "disconnect": ("ssh", "hangup"),
    "logout": ("log out",),
    "crash": ("unexpected error", "killed"),
    "uninstall": ("delete",),
    "remove": ("delete", "trash"),
    "undo": ("restore", "bring back"),
    "resume": ("continue", "goes on"),
    "blend": ("mix",),
    "interpolate": ("mix",),
    "color": ("colour",),
    "shortcut": ("key",),
    "automatic1111": ("a1111",),
    "webui": ("automatic1111",),
    "gpu": ("cuda",),
    "download": ("pull",),
}
# words of a question that say nothing about its subject
FILLERS = frozenset(
    "a an and are at be by can do does for from how i if in is it its me my of on or the this to what when where which "
    "why will with you".split()
)
_HEADING = re.compile(r"(#{1,4}) (.+)")
_CODE = re.compile(r"(`+)(.+?)(?<!`)\1(?!`)")
_LINK = re.compile(r"\[([^\]]+)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,2})(?=\S)(.+?)(?<=\S)\1(?![\w*])")


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
    """What a search has found: a section, the line of it that fits best, and whether it has all words."""

    section: Section
    excerpt: str
    has_all_words: bool = True


def find_guide(name: str, words: str = "") -> str:
    """Return the guide with this name, or the only one whose name begins so.

    Args:
        words: what else the user has typed, for the hint.

    Raises:
        ConfigError: there is no such guide. The message lists close matches, or the guides that have these words.
    """
    key = name.casefold().strip().removesuffix(".md")
    if key in GUIDES:
        return key
    begins = [guide for guide in GUIDES if key and guide.startswith(key)]
    if len(begins) == 1:
        return begins[0]
    query = f"{name} {words}".strip()
    close = begins or get_close_matches(key, GUIDES, MAX_SUGGESTIONS, 0.5)
    about = list(dict.fromkeys(passage.section.guide for passage in search_guides(query) if passage.has_all_words))
    if begins or (close and not words):
        hint = f"Close matches: {', '.join(close)}."
    elif about:
        command = f"softprompt-tui docs {about[0]} {shlex.join(query.split())}"
        hint = f"{', '.join(about[:MAX_SUGGESTIONS])} {'has' if len(about) == 1 else 'have'} it: try `{command}`."
    else:
        hint = f"The guides: {', '.join(GUIDES)}."
    search = f"softprompt-tui docs --search {shlex.join(query.split()) if words or about else 'WORDS'}"
    raise ConfigError(f"there is no guide {name!r}. {hint} `{search}` searches all of them.")


def guide_title(name: str) -> str:
    """Return the heading of a guide."""
    return read_sections(name)[0].heading


def find_section(guide: str, words: str) -> Section:
    """Return the section of a guide that a search for these words finds first, or the one with this heading.

    Raises:
        ConfigError: no section has one of the words.
    """
    sections = read_sections(guide)
    for is_same in (str.__eq__, lambda heading, text: fold(heading) == fold(text)):
        if same := next((section for section in sections if is_same(section.heading, words)), None):
            return same
    if found := next((passage for _, passage in _rank(words) if passage.section.guide == guide), None):
        return found.section
    raise ConfigError(
        f"no section of {guide} has {words!r}. `softprompt-tui docs --search {shlex.join(words.split())}` searches all "
        "guides."
    )


def text_with_subsections(section: Section) -> str:
    """Return the text of a section and of those below it. The first section of a guide is its introduction alone."""
    sections = read_sections(section.guide)
    start = sections.index(section)
    end = start + 1
    while section.level > 1 and end < len(sections) and sections[end].level > section.level:
        end += 1
    return "\n".join(each.text for each in sections[start:end])


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


def query_patterns(text: str) -> list[re.Pattern[str]]:
    """Return a pattern for each word that a search for `text` looks for. It matches in folded text."""
    return [_pattern(word) for word in _query_words(text)]


def _query_words(text: str) -> list[str]:
    """Return the words of a query, without those such as "the" if there are others."""
    words = list(dict.fromkeys(word.strip("?!.,;:\"'()") or word for word in fold(text).split()))
    return [word for word in words if word not in FILLERS] or words


def _pattern(word: str) -> re.Pattern[str]:
    """Return a pattern for words that begin with `word`, with its singular, or with a synonym."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, _forms(word)))})")


def _forms(word: str) -> Iterator[str]:
    yield word
    singular = word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
    if singular != word:
        yield singular
    for key, others in SYNONYMS.items():
        if singular.startswith(key) and singular.removeprefix(key) in ("", "d", "ed", "ing", "ion"):
            yield from others


@dataclass(frozen=True)
class _Searchable:
    """A section as a search sees it: its heading and text are folded.

    Attributes:
        lines: its lines without Markdown, as they are shown and folded.
    """

    source: Section
    heading: str
    text: str
    lines: tuple[tuple[str, str], ...]


@cache
def _searchable(guide: str) -> tuple[_Searchable, ...]:
    return tuple(_prepare(section) for section in read_sections(guide))


def _prepare(section: Section) -> _Searchable:
    heading = fold(f"{section.heading}\n{GUIDES[section.guide] if section.line == 1 else ''}")
    lines = tuple((line, fold(line)) for line in plain_lines("\n".join(section.text.splitlines()[1:])))
    text = "\n".join((section.guide, heading, *(folded for _, folded in lines)))
    return _Searchable(section, heading, text, lines)


def search_guides(text: str) -> list[Passage]:
    """Find the sections that answer `text` best.

    Sections with all words are first. If there are fewer than ten, those with most of the words follow. Rare words
    count more than frequent words, and a word in the heading counts twice. The start of a word is enough. Case and
    accents do not matter.
    """
    ranked = _rank(text)
    complete = [passage for _, passage in ranked if passage.has_all_words]
    others = ranked[len(complete) :]
    close = [passage for score, passage in others if score >= MIN_SHARE * others[0][0]]
    return complete + close[: max(0, MIN_FOUND - len(complete))]


def _rank(text: str) -> list[tuple[float, Passage]]:
    """Return all sections that have a word of `text`, with their scores. Those with all words are first."""
    words = _query_words(text)
    patterns = [_pattern(word) for word in words]
    sections = [section for guide in GUIDES for section in _searchable(guide)]
    counts = [[len(pattern.findall(section.text)) for pattern in patterns] for section in sections]
    weights = [_weight(word, column) for word, column in zip(words, zip(*counts, strict=True), strict=True)]
    ranked: list[tuple[tuple[bool, float, float, int], Passage]] = []
    for section, row in zip(sections, counts, strict=True):
        if any(row):
            score = sum(weight for weight, count in zip(weights, row, strict=True) if count)
            score += _score(patterns, weights, section.heading)
            score *= REFERENCE_SHARE if section.source.guide == REFERENCE else 1
            line_score, excerpt = _best_line(section, patterns, weights)
            passage = Passage(section.source, excerpt, all(row))
            ranked.append(((all(row), score, line_score, sum(row)), passage))
    ranked.sort(key=lambda scored: scored[0], reverse=True)
    return [(rank[1], passage) for rank, passage in ranked]


def _weight(word: str, counts: Sequence[int]) -> float:
    """Return how much a word counts: the logarithm of how rare it is. Numbers say little."""
    rarity = math.log((1 + len(counts)) / (1 + sum(map(bool, counts))))
    return rarity * NUMBER_SHARE if word.isdigit() else rarity


def _score(patterns: Sequence[re.Pattern[str]], weights: Sequence[float], text: str) -> float:
    return sum(weight for pattern, weight in zip(patterns, weights, strict=True) if pattern.search(text))


def _best_line(
    section: _Searchable, patterns: Sequence[re.Pattern[str]], weights: Sequence[float]
) -> tuple[float, str]:
    """Return the score of the line with most of the words, and that line, cut if it is long."""
    scores = [_score(patterns, weights, folded) for _, folded in section.lines]
    if not scores:
        return 0.0, ""
    best = scores.index(max(scores))
    line, folded = section.lines[best]
    first = min((match.start() for pattern in patterns if (match := pattern.search(folded))), default=0)
    return scores[best], _cut(line, first)


def _cut(line: str, position: int) -> str:
    """Cut a long line between words, so that what is at `position` stays."""
    if len(line) <= MAX_EXCERPT_LENGTH:
        return line
    start = max(0, min(position - MAX_EXCERPT_LENGTH // 4, len(line) - MAX_EXCERPT_LENGTH))
    end = start + MAX_EXCERPT_LENGTH
    if start and (space := line.find(" ", start, position)) >= 0:
        start = space
    if end < len(line) and (space := line.rfind(" ", position, end)) >= 0:
        end = space
    return f"{'… ' * bool(start)}{line[start:end].strip()}{' …' * (end < len(line))}"


def plain_lines(text: str) -> list[str]:
    """Return the lines of Markdown without its markup. Code stays as it is, apart from spaces around it."""
    lines, is_code = [], False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif plain := line.strip() if is_code else _plain(line):
            lines.append(plain)
    return lines


def _plain(line: str) -> str:
    """Return a line of prose or a row of a table without Markdown. The cells of a row have two spaces between them."""
    text = line.strip()
    is_row = text.startswith("|")
    if is_row and not text.strip(" |-:"):  # below the header
        return ""
    heading = _HEADING.fullmatch(text)
    text = heading[2] if heading else text.removeprefix("- ")
    if is_row:
        cells = (_plain_inline(cell.strip().replace("\\|", "|")) for cell in re.split(r"(?<!\\)\|", text))
        return "  ".join(filter(None, cells))
    return _plain_inline(text)


def _plain_inline(text: str) -> str:
    """Remove emphasis and the targets of links outside code, and the backticks around code."""
    codes = list[str]()

    def hide(match: re.Match[str]) -> str:
        code = match[2]
        if code.startswith(" ") and code.endswith(" ") and code.strip():
            code = code[1:-1]
        codes.append(code)
        return f"\0{len(codes) - 1}\0"

    shown = _EMPHASIS.sub(r"\2", _LINK.sub(r"\1", " ".join(_CODE.sub(hide, text).split())))
    return re.sub(r"\0(\d+)\0", lambda match: codes[int(match[1])], shown)


def fold(text: str) -> str:
    """Return text for comparison: lower case without accents. Its length does not change for text in NFC."""
    return "".join(_fold_char(char) for char in text)


def _fold_char(char: str) -> str:
    if char.isascii():
        return char.lower()
    return unicodedata.normalize("NFD", char)[0].lower()[:1]
