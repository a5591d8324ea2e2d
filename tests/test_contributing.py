"""CONTRIBUTING.md is true: its examples work when they are applied to a copy of the program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
MAX_EXAMPLE_LINES = 40
Run = Callable[..., str]


def examples(section: str) -> list[tuple[str, str]]:
    """The section's code blocks that change the program, as (language, code)."""
    blocks = re.findall(r"^```(python|diff)\n(.*?)^```$", SECTIONS[section], re.DOTALL | re.MULTILINE)
    return [(language, code) for language, code in blocks if code.startswith(("# ", "--- "))]


def apply_examples(copy: Path) -> None:
    for section in SECTIONS:
        for language, code in examples(section):
            first, _, body = code.partition("\n")
            path = copy / first.split()[1]
            if language == "python":
                assert not path.exists()
                path.write_text(body, encoding="utf-8")
                continue
            lines = body.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] in " -")
            new = "".join(line[1:] for line in lines if line[0] in " +")
            text = path.read_text(encoding="utf-8")
            assert text.count(old) == 1, f"{path} must contain these lines once:\n{old}"
            path.unlink()  # the link to the real file
            path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the program, with every example of the page applied."""
    copy = tmp_path_factory.mktemp("copy")
    for package in ("core/softprompt", "softprompt_tui"):
        for path in (ROOT / package).rglob("*"):
            target = copy / path.relative_to(ROOT)
            if path.is_file() and "__pycache__" not in path.parts:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(path)
    apply_examples(copy)
    return copy


@pytest.fixture
def run_python(copy: Path) -> Run:
    """Run Python with the changed copy in place of the program."""

    def run(*args: str) -> str:
        environment = os.environ | {"PYTHONPATH": f"{copy / 'core'}{os.pathsep}{copy}"}
        done = subprocess.run([sys.executable, *args], env=environment, cwd=copy, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_model_family_and_the_objective_train_together(run_python: Run) -> None:
    code = """
        from softprompt.config import TrainConfig
        from softprompt.encoders.bag_of_words import BagOfWords
        from softprompt.objectives.mean_embedding import MeanEmbeddingObjective
        from softprompt.training.loop import train_one

        model = BagOfWords()
        objective = MeanEmbeddingObjective(model)
        prompt = objective.tokenize("a red fox asleep in deep snow", (), "refuse")
        config = TrainConfig(tokens=2, steps=100, restarts=2, contexts=())
        reports = list(train_one(model, lambda config, tokens: objective, prompt, config))
        print(reports[0].similarity < reports[-1].best_similarity, reports[-1].best_similarity > 0.99)
    """
    assert run_python("-c", textwrap.dedent(code)).split() == ["True", "True"]


def test_the_command_and_the_file_format_work(run_python: Run, tmp_path: Path) -> None:
    def cli(*args: str) -> str:
        return run_python("-m", "softprompt_tui", *args)

    cli("train", "a red fox", "-k", "2", "--steps", "20", "--name", "fox")
    assert len(cli("words", "fox").splitlines()) == 1
    assert "load_word2vec_format" in cli("export", "fox", "--to", "fasttext", "--out", str(tmp_path / "fox.vec"))
    assert "2 of width 256" in cli("import", str(tmp_path / "fox.vec"))


def test_the_pane_shows_the_note_and_its_key_edits_it(run_python: Run) -> None:
    code = """
        import asyncio
        from softprompt import Library, load_encoder, train
        from softprompt_tui.app import SoftPromptApp
        from softprompt_tui.widgets.note import NotePane

        Library().save(train(load_encoder("mini"), "a red fox", tokens=1, steps=5))

        async def main():
            app = SoftPromptApp()
            async with app.run_test(size=(120, 40)) as pilot:
                pane = app.screen.query_one(NotePane)
                while not getattr(pane, "entry", ""):
                    await pilot.pause()
                pane.focus()
                await pilot.press("n")
                while len(app.screen_stack) == 1:
                    await pilot.pause()
                await pilot.press(*"sly", "enter")
                while "sly" not in str(pane.content):
                    await pilot.pause()

        asyncio.run(asyncio.wait_for(main(), 60))
    """
    run_python("-c", textwrap.dedent(code))
    run_python("-m", "softprompt_tui", "worker", "stop")


@pytest.mark.parametrize("section", ["Add a pane", "Add a command"])
def test_a_pane_and_a_command_are_short(section: str) -> None:
    assert sum(len(code.splitlines()) - 1 for _, code in examples(section)) < MAX_EXAMPLE_LINES


def test_every_path_on_the_page_exists() -> None:
    paths = re.findall(
        r"`((?:tests|core|softprompt_tui|encoders|objectives|training|worker|controllers)/[\w./]+)`", TEXT
    )
    assert paths
    for path in paths:
        assert any((ROOT / root / path).exists() for root in ("", "core/softprompt", "softprompt_tui")), path
