"""`softprompt-tui docs`: the list of guides, one guide, and the search."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from softprompt_tui.cli import main
from softprompt_tui.services.guides import GUIDES, read_guide, search_guides
from tests.pty_screen import Terminal

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_without_a_topic_it_lists_all_guides_with_a_line_each(run: Run) -> None:
    done = run("docs")
    _, *rows = done.stdout.splitlines()
    assert [row.split(maxsplit=1) for row in rows] == [[name, about] for name, about in GUIDES.items()]
    assert "docs TOPIC" in done.stderr
    assert "␊" not in done.stderr


def test_a_piped_guide_is_its_markdown(run: Run) -> None:
    done = run("docs", "composing")
    assert done.stdout.rstrip() == read_guide("composing").rstrip()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["trouble", "Troubleshooting", "troubleshooting.md"])
def test_the_first_letters_of_a_topic_are_enough(name: str, run: Run) -> None:
    assert run("docs", name).stdout.startswith("# Troubleshooting")


@pytest.mark.parametrize(
    ("name", "hint"), [("compsing", "composing"), ("co", "composing, commands"), ("zzz", ", ".join(GUIDES))]
)
def test_an_unknown_topic_gives_the_nearest_names(name: str, hint: str, run: Run) -> None:
    done = run("docs", name)
    assert done.returncode == 2
    assert f"there is no guide {name!r}" in done.stderr
    assert hint in done.stderr
    assert "docs --search" in done.stderr


def test_words_without_a_topic_are_an_error_that_offers_the_search(run: Run) -> None:
    done = run("docs", "out", "of", "memory")
    assert done.returncode == 2
    assert "softprompt-tui docs --search out of memory" in done.stderr


def test_words_after_a_topic_show_one_section(run: Run) -> None:
    done = run("docs", "trouble", "out", "of", "mem")
    assert done.stdout.startswith("## Out of memory\n")
    assert done.stdout.count("\n## ") == 0
    found = json.loads(run("docs", "trouble", "out", "of", "mem", "--json").stdout)
    assert (found["topic"], found["heading"]) == ("troubleshooting", "Out of memory")
    assert found["text"] == done.stdout.removesuffix("\n")
    assert run("docs", "worker", "zzzz").returncode == 2


def test_the_search_finds_sections_by_the_beginnings_of_words(run: Run) -> None:
    done = run("docs", "--search", "OUT", "of", "mem")
    first, excerpt, *_ = done.stdout.splitlines()
    assert first == "troubleshooting: Out of memory"
    assert "memory" in excerpt
    assert done.returncode == 0
    assert "`softprompt-tui docs troubleshooting OUT of mem`" in done.stderr
    assert run("docs", "--search", "nosuchword").stderr.startswith("no guide contains 'nosuchword'")
    assert run("docs", "--search").returncode == 2


def test_every_section_can_be_found_by_its_heading() -> None:
    from softprompt_tui.services.guides import read_sections

    sections = [section for name in GUIDES for section in read_sections(name)]
    assert len(sections) > 100
    lost = [
        section.heading
        for section in sections
        if not any(passage.section == section for passage in search_guides(section.heading.strip("[]`")))
    ]
    assert lost == []


@pytest.mark.parametrize(
    ("task", "guide"),
    [
        ("train in the background", "worker"), ("thousands of prompts", "batches"), ("back up", "library-files"),
        ("login", "troubleshooting"), ("bring back trash", "library-files"), ("comfyui", "image-programs"),
        ("hidden states", "real-models"), ("how many tokens", "choosing-tokens"), ("mix", "composing"),
        ("themes", "interface"), ("exit code", "commands"), ("pandas", "python-api"), ("paste anywhere", "first-steps"),
    ],
)  # fmt: skip
def test_a_task_is_found_by_its_words(task: str, guide: str) -> None:
    assert guide in [passage.section.guide for passage in search_guides(task)[:4]]


def test_json_has_the_list_a_guide_and_what_is_found(run: Run) -> None:
    assert [each["topic"] for each in json.loads(run("docs", "--json").stdout)] == [*GUIDES]
    assert json.loads(run("docs", "worker", "--json").stdout)["text"] == read_guide("worker")
    found = json.loads(run("docs", "--search", "pause", "--json").stdout)
    for each in found:
        assert each["heading"] in read_guide(each["topic"]).splitlines()[each["line"] - 1]
    assert found


def test_topics_are_completed() -> None:
    environment = {
        "COMP_WORDS": "softprompt-tui docs co",
        "COMP_CWORD": "2",
        "_SOFTPROMPT_TUI_COMPLETE": "bash_complete",
    }
    done = CliRunner().invoke(main, prog_name="softprompt-tui", env=environment)
    assert done.output.split() == ["plain,composing", "plain,commands"]


@pytest.mark.parametrize(("variables", "has_colors"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_a_terminal_shows_a_guide_in_the_pager_without_markup(variables: dict[str, str], has_colors: bool) -> None:
    command = (sys.executable, "-m", "softprompt_tui", "docs", "composing")
    with Terminal(*command, width=80, height=24, PAGER="less", LESS="-R", **variables) as terminal:
        terminal.wait_for(r"(?m)^Use soft prompts as words *$")
        terminal.wait_for("whole prompt")
        shown = terminal.text
        assert "```" not in shown
        assert "##" not in shown
        colors = {char.fg for line in terminal.screen.buffer.values() for char in line.values()}
        assert (colors != {"default"}) is has_colors
        terminal.press("q")
        assert terminal.wait_for_exit() == 0
