"""The README is correct: its Python example runs, its commands and options exist, and its links lead somewhere."""

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
    monkeypatch.setattr(softprompt, "train", partial(softprompt.train, steps=20))  # enough to show that it runs
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    exec(compile(code, "README.md", "exec"), {})
    (entry,) = Library().list().entries
    assert entry.name == "red-fox-asleep"


def test_the_readme_lists_exactly_the_commands_that_exist() -> None:
    table = README.split("## Commands")[1].split("\n\n")[1]
    listed = {
        cell.split()[0] for row in table.splitlines()[2:] for cell in re.findall(r"`([^`]*)`", row.split(" | ")[0])
    }
    assert listed == set(COMMANDS)


def test_no_document_has_a_placeholder() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.md") if ".venv" not in path.parts]
    assert len(texts) >= 4
    assert [text for text in texts if "@@" in text] == []


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)


def test_the_readme_uses_only_commands_and_options_that_exist() -> None:
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
    commands = set(re.findall(r"softprompt-tui (\w+)", blocks))
    assert commands
    assert commands <= set(COMMANDS)
    options = {opt for command in all_commands().values() for parameter in command.params for opt in parameter.opts}
    assert set(re.findall(r"(?<=[ `])--[a-z-]+", README)) - options <= {"--help"}
