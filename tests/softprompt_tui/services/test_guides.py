"""The guides as text: their lines without Markdown, and the search through all of them."""

from __future__ import annotations

import re

import pytest
from markdown_it import MarkdownIt

from softprompt.errors import ConfigError
from softprompt_tui.services.guides import (
    GUIDES,
    Section,
    find_guide,
    find_section,
    plain_lines,
    query_patterns,
    read_guide,
    read_sections,
    search_guides,
    text_with_subsections,
)

QUESTIONS = [
    ("csv names tags", "batches", "What a file may look like"),
    ("ssh drops", "worker", "What survives what"),
    ("disconnect", "worker", "What survives what"),
    ("OOM", "troubleshooting", "Out of memory"),
    ("nohup", "worker", "What survives what"),
    ("mix 60 40", "composing", "Mix two meanings"),
    ("how do I mix two prompts?", "composing", "Mix two meanings"),
    ("free disk space", "troubleshooting", "The library is damaged, or the disk is full"),
    ("models on disk", "real-models", "Find, pull and use a model"),
    ("train_batch", "python-api", "train_batch"),
]


def code_of(guide: str) -> list[str]:
    """Return all code of a guide, as another reader of Markdown sees it: lines of blocks, and code inside lines."""
    code = list[str]()
    for token in MarkdownIt().enable("table").parse(read_guide(guide)):
        if token.type == "fence":
            code += [line.strip() for line in token.content.splitlines() if line.strip()]
        code += [child.content for child in token.children or () if child.type == "code_inline"]
    return code


@pytest.mark.parametrize("guide", GUIDES)
def test_lines_have_all_code_as_it_is_in_the_guide(guide: str) -> None:
    lines = iter(plain_lines(read_guide(guide)))
    line, position = next(lines), 0
    for code in code_of(guide):  # in the same order
        while (found := line.find(code, position)) < 0:
            line, position = next(lines, None), 0  # type: ignore[assignment]
            assert line is not None, f"{code!r} is lost or changed"
        position = found + len(code)


def test_lines_of_prose_have_no_markup() -> None:
    prose = "## A *short* title\n\n- **bold** and [a page](x.md), 2 * 3 | 4\n"
    table = "| a | b |\n|---|--:|\n| `x \\| y` | *c* |\n"
    expected = ["A short title", "bold and a page, 2 * 3 | 4", "a  b", "x | y  c"]
    assert plain_lines(prose + table) == expected


def test_every_excerpt_is_a_line_of_its_section() -> None:
    for query in ("lake-view", "list head", "path str", "disk"):
        for passage in search_guides(query):
            shown = passage.excerpt.removeprefix("… ").removesuffix(" …")
            assert any(shown in line for line in plain_lines(passage.section.text)), shown


@pytest.mark.parametrize(("question", "guide", "heading"), QUESTIONS)
def test_a_plain_question_finds_its_section(question: str, guide: str, heading: str) -> None:
    found = [(passage.section.guide, passage.section.heading) for passage in search_guides(question)]
    assert (guide, heading) in found[:4]


def test_sections_with_all_words_are_first_and_always_found() -> None:
    found = [passage.has_all_words for passage in search_guides("free disk space")]
    assert found == sorted(found, reverse=True)
    assert True in found
    assert False in found
    assert len(found) <= 10
    assert len(search_guides("train")) > 10
    assert search_guides("nosuchword") == search_guides(" ") == []


@pytest.mark.parametrize("question", [question for question, _, _ in QUESTIONS])
def test_the_guide_and_the_words_open_the_section_that_the_search_has_found(question: str) -> None:
    for passage in search_guides(question)[:1]:
        assert find_section(passage.section.guide, question) == passage.section


def test_a_heading_opens_its_own_section() -> None:
    assert find_section("python-api", "train").level == 3
    assert find_section("python-api", "Train").level == 2
    assert find_section("troubleshooting", "out of memory").heading == "Out of memory"
    with pytest.raises(ConfigError, match="no section of worker has 'zzzz'"):
        find_section("worker", "zzzz")


def test_a_section_has_those_below_it_and_a_title_only_its_introduction() -> None:
    encoder = text_with_subsections(find_section("python-api", "TextEncoder"))
    assert re.findall(r"^#+ (.+)$", encoder, re.MULTILINE) == ["TextEncoder", "TextEncoder.to", "TextEncoder.encode"]
    title: Section = read_sections("worker")[0]
    assert text_with_subsections(title) == title.text


def test_an_unknown_guide_that_is_a_subject_names_the_guides_about_it() -> None:
    with pytest.raises(ConfigError, match=r"choosing-tokens, .*`softprompt-tui docs choosing-tokens sweep`"):
        find_guide("sweep")
    with pytest.raises(ConfigError, match=r"docs troubleshooting out of memory`.*docs --search out of memory`"):
        find_guide("out", "of memory")


def test_words_and_their_synonyms_match_beginnings() -> None:
    (tags,) = query_patterns("the Tags?")
    assert tags.match("tag") and tags.match("tagged") and not tags.match("stag")  # noqa: PT018
    (drops,) = query_patterns("disconnected")
    assert drops.search("over ssh")
    (colors,) = query_patterns("colors")
    assert colors.search("few colours")
    assert len(query_patterns("the")) == 1
