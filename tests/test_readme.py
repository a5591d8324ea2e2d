"""The README is short and correct: its Python example runs, its links lead somewhere, CI can read it.

tests/test_guides.py runs its other examples, and checks the commands and options that it names.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

import softprompt
from softprompt import Library
from softprompt_tui.services.guides import GUIDES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAX_LINES, MAX_COLUMNS = 120, 120
MAX_ANIMATION_BYTES = 2_000_000


def test_it_is_short() -> None:
    lines = README.splitlines()
    assert len(lines) <= MAX_LINES
    assert [line for line in lines if len(line) > MAX_COLUMNS and not line.startswith("|")] == []


def test_it_says_what_and_why_in_three_sentences() -> None:
    _, introduction, *_ = README.split("\n\n")
    assert len(re.findall(r"\.(?=\s|$)", introduction)) == 3


def test_the_sizes_come_before_anything_is_installed() -> None:
    install = README[README.index("## Install") : README.index("## Use")]
    assert install.index("1.2 GB") < install.index("5.6 GB") < install.index("```bash")


def test_the_uses_are_eleven_lines() -> None:
    (block,) = re.findall(r"## Use\n\n```bash\n(.*?)```", README, re.DOTALL)
    lines = block.splitlines()
    assert len(lines) == 11
    assert all(line.startswith("softprompt-tui") for line in lines)


def test_it_leads_to_every_guide() -> None:
    guides = README[README.index("## Guides") : README.index("<!-- only in the repository -->")]
    assert re.findall(r"\]\(softprompt_tui/docs/([\w-]+)\.md\)", guides) == [*GUIDES]


def test_the_animation_moves_and_is_small() -> None:
    path = ROOT / "screenshots" / "training.gif"
    assert path.stat().st_size < MAX_ANIMATION_BYTES
    with Image.open(path) as picture:
        assert picture.n_frames > 20


def test_the_python_example_runs(capsys: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softprompt, "train", partial(softprompt.train, steps=20))  # enough to show that it runs
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) == 5
    exec(compile(code, "README.md", "exec"), {})
    (entry,) = Library().list().entries
    assert entry.name == "red-fox-asleep"


def test_no_document_has_a_placeholder() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ROOT.rglob("*.md") if ".venv" not in path.parts]
    assert len(texts) >= 4
    assert [text for text in texts if "@@" in text] == []


def test_links_inside_the_repository_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert targets
    assert all((ROOT / target).exists() for target in targets)
