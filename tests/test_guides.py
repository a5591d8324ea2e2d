"""The guides and the README are true: their examples run, and name only commands and options that exist."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from softprompt_tui.cli import COMMANDS
from softprompt_tui.services.guides import GUIDES, read_guide, read_sections
from tests.commands import all_commands
from tests.guides import FOLDER, ROOT, Ran, open_shell, read_blocks, shape
from tests.nursery import Nursery

PATHS = [ROOT / "README.md", *(FOLDER / f"{name}.md" for name in GUIDES)]
PAGES = {path.name: path.read_text(encoding="utf-8") for path in PATHS}
LANGUAGES = {"bash", "console", "python"}
RECIPES = "python-api.md"  # tests/test_python_api.py runs its examples
MAX_LINE_LENGTH = 102  # of prose: a terminal shows it without wrapping, with a margin
Results = dict[str, list[Ran]]


@pytest.fixture(scope="module")
def results(nursery: Nursery, cached_model_list: Path) -> Iterator[Results]:
    """Run all examples in one home, in the order of reading. Return what they did, by document."""
    folder = Path(tempfile.mkdtemp(prefix="sp"))  # short, because the worker's socket is in it
    (folder / "home").mkdir()
    (folder / "home" / "cache").symlink_to(cached_model_list)
    environment = {
        "SOFTPROMPT_HOME": str(folder / "home"), "SOFTPROMPT_RUNTIME": str(folder / "run"), "HOME": str(folder),
        "COLUMNS": "120",
    }  # fmt: skip
    with open_shell(folder, nursery, **environment) as shell:
        yield {
            path.name: [ran for block in read_blocks(path) for ran in shell.run(block)]
            for path in PATHS
            if path.name != RECIPES
        }
    shutil.rmtree(folder)


@pytest.mark.parametrize("page", [name for name in PAGES if name != RECIPES])
def test_the_examples_run(page: str, results: Results) -> None:
    failed = [f"{ran.block}: exit code {ran.code}\n{ran.command}\n{ran.error}" for ran in results[page] if ran.code]
    assert failed == []


@pytest.mark.parametrize("page", [name for name in PAGES if "```console" in PAGES[name]])
def test_the_examples_print_what_is_shown(page: str, results: Results) -> None:
    """Figures, words and paths differ from machine to machine; the lines and their labels do not."""
    examples = [ran for ran in results[page] if ran.expected]
    assert examples
    for ran in examples:
        assert shape(ran.output) == shape(ran.expected), f"{ran.block}\n{ran.output}"


def test_every_guide_is_listed_and_says_what_it_is_about() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == set(GUIDES)
    for name in GUIDES:
        title, empty, introduction, *_ = read_guide(name).splitlines()
        assert title.startswith("# "), name
        assert not empty, name
        assert introduction, name


def test_examples_have_a_language_that_is_run() -> None:
    languages = {block.language for path in PATHS for block in read_blocks(path)}
    assert languages == LANGUAGES


@pytest.mark.parametrize("name", [name for name in GUIDES if name != "python-api"])
def test_a_guide_can_be_read_in_a_terminal(name: str) -> None:
    prose = re.sub(r"```.*?```", "", read_guide(name), flags=re.DOTALL)
    assert re.findall(r"</?\w+>|<!--", re.sub(r"`[^`]*`", "", prose)) == []
    lines = [re.sub(r"\]\([^)]*\)", "]", line) for line in prose.splitlines() if not line.startswith("|")]
    assert [line for line in lines if len(line) > MAX_LINE_LENGTH] == []
    headings = [section.heading for section in read_sections(name)]
    assert len(headings) == len(set(headings))


@pytest.mark.parametrize("page", PAGES)
def test_only_commands_and_options_that_exist_are_named(page: str) -> None:
    text = PAGES[page]
    assert set(re.findall(r"(?:^|[`$] ?)softprompt-tui ([a-z][\w-]+)", text, re.MULTILINE)) <= set(COMMANDS)
    options = {opt for command in _with_subcommands() for parameter in command.params for opt in parameter.opts}
    named = set(re.findall(r"(?<=[ `])--[a-z][a-z-]*", _without_other_programs(text)))
    assert named - options <= {"--help"}


def _with_subcommands() -> list:
    commands = [*all_commands().values()]
    return commands + [sub for command in commands for sub in getattr(command, "commands", {}).values()]


def _without_other_programs(text: str) -> str:
    """Return the text without lines that install something, which have options of their own."""
    return "\n".join(line for line in text.splitlines() if not re.search(r"\b(pip|pipx|uv) ", line))


@pytest.mark.parametrize("page", PAGES)
def test_a_guide_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"softprompt-tui docs ([a-z][\w-]+)", PAGES[page])) | {
        Path(target).stem for target in re.findall(r"\]\(softprompt_tui/docs/([\w-]+\.md)\)", PAGES[page])
    }
    assert named <= set(GUIDES)


def test_the_table_of_commands_lists_exactly_those_that_exist() -> None:
    table = read_guide("commands").split("## All commands")[1].split("\n\n")[1]
    listed = {
        cell.split()[0] for row in table.splitlines()[2:] for cell in re.findall(r"`([^`]*)`", row.split(" | ")[0])
    }
    assert listed == set(COMMANDS)
