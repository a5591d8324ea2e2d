"""The README is true: its Python runs, its commands exist, and its test command is what CI runs."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest

import softprompt
from softprompt import Library
from softprompt_tui.cli import COMMANDS
from tests.commands import all_commands

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(capsys: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softprompt, "train", partial(softprompt.train, steps=20))  # enough to see that it runs
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    exec(compile(code, "README.md", "exec"), {})
    (saved,) = Library().list().entries
    assert saved.name == "red-fox-asleep"


def test_every_command_is_in_the_readme_and_the_other_way_round() -> None:
    table = README.split("## Commands")[1].split("\n\n")[1]
    named = {
        cell.split()[0] for row in table.splitlines()[2:] for cell in re.findall(r"`([^`]*)`", row.split(" | ")[0])
    }
    assert named == set(COMMANDS)


def test_nothing_is_left_to_be_filled_in() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.md") if ".venv" not in path.parts]
    assert len(texts) >= 4
    assert [text for text in texts if "@@" in text] == []


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)


def test_the_examples_of_the_commands_use_options_that_exist() -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    named = set(re.findall(r"softprompt-tui (\w+)", blocks))
    assert named
    assert named <= set(COMMANDS)
    options = {opt for command in all_commands().values() for parameter in command.params for opt in parameter.opts}
    assert set(re.findall(r"(?<=[ `])--[a-z-]+", README)) - options <= {"--help"}
