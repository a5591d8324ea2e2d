"""The page about the Python API is true: its recipes run from the wheel, and its reference is current."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

import softprompt
from tests.api_reference import updated_page
from tests.recipes import NOTEBOOK, PAGE, ROOT, build_wheel, environment, make_environment, read_recipes, run_recipes

TEXT = PAGE.read_text(encoding="utf-8")
RECIPES = read_recipes()
# what the recipes print, or the notebook shows
OUTPUTS = {
    "A table of twenty prompts": r"^ *name +similarity .*\n( *oil-.*\n){20}$",
    "The vectors in open_clip": r"^(0\.\d{4}) in softprompt, \1 in open_clip\n$",
    "The vectors in diffusers": r"^<fox> is in .*/fox\.\w+\.safetensors, and fox\.png shows it\n$",
    "The vectors in transformers": r"^(0\.\d{4}) in softprompt, \1 in transformers\n$",
    "Your own contexts": r"^0\.9\d+  alone\n(0\.\d+  .*\(the prompt alone: 0\.\d+\)\n){2}$",
    "Your own stopping rule": r"^similarity 0\.9\d+ after \d+ steps \(interrupted\)\n$",
    "A library from Python": r"^2 0\.9\d+\n\w+ mill \(\)\n\w+ fox \('animal',\)\n0\.9\d+ with \d+ tokens: a red fox",
    "A pool of processes": r"^(\d tokens: similarity 0\.9\d+\n){3}$",
    # a bar can be flushed before or after the value that its cell shows
    "A notebook": r"(?s)(?=.*training: 100%)(?=.*sweep: 100%).*<svg .*<Figure .*winter fox.*<svg .*1 soft prompt.*knee",
    "asyncio": r"(?m)^rate 0\.02, step 2: [^\0]*^SoftPrompt\('a red fox asleep",
}
# what the two type checkers must both report, in a user's script
MISTAKES = """
import softprompt
encoder = softprompt.load_encoder("mini")
prompt = softprompt.train(encoder, "a red fox")
library = softprompt.Library()
softprompt.nothing  # no such name
softprompt.train(encoder, "a red fox", token=3)  # no such setting
softprompt.train(encoder, 5)
softprompt.train(encoder, "a red fox", tokens="many")
softprompt.train(encoder, "a red fox", steps="100")
softprompt.load_encoder(devise="cpu")  # no such argument
library.open(5)
prompt.similarty  # no such attribute
softprompt.train_batch(["a red fox"]).similarity  # a list
softprompt.sweep(encoder, "a red fox", token_counts="1-8")
""".lstrip()
FIRST_MISTAKE = 5  # its line
# their annotations are missing or incomplete, so that their values are Any
UNTYPED = ("diffusers", "open_clip", "pandas", "transformers")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    return make_environment(folder / "environment", build_wheel(folder))


def test_the_reference_is_that_of_the_docstrings() -> None:
    assert updated_page(TEXT) == TEXT, "run `python -m tests.api_reference`"


def test_every_public_name_is_on_the_page() -> None:
    headings = set(re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE))
    errors = set(re.findall(r"^\| `(\w+)` \|", TEXT, re.MULTILINE))
    assert set(softprompt.__all__) - headings - errors == {"__version__"}
    assert "`softprompt.__version__`" in TEXT


def test_the_page_can_be_read_in_a_terminal() -> None:
    """It has no HTML and no long lines, and each heading can be searched for."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", TEXT, flags=re.DOTALL)
    assert re.findall(r"</?\w+>|<!--", prose) == []
    long_lines = [line for line in TEXT.splitlines() if len(line) > 100 and not line.startswith("|")]
    assert long_lines == []
    headings = re.findall(r"^#+ .+$", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL), re.MULTILINE)
    assert [heading for heading, count in Counter(headings).items() if count > 1] == []


def test_docstrings_name_nothing_private() -> None:
    assert re.findall(r"`_\w+`", TEXT) == []


def test_the_introduction_runs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softprompt, "train", partial(softprompt.train, steps=20))  # enough to show that it runs
    (code,) = re.findall(r"```python\n(.*?)```", TEXT[: TEXT.index("# Recipes")], re.DOTALL)
    exec(compile(code, PAGE.name, "exec"), {})
    assert re.fullmatch(r"0\.9\d+ \(3, 256\)\n", capsys.readouterr().out)


def test_a_recipe_is_a_short_script() -> None:
    assert [recipe.title for recipe in RECIPES] == [*OUTPUTS]
    for recipe in RECIPES:
        lines = [line for line in recipe.code.splitlines() if line.strip() and not line.startswith("#")]
        assert 5 <= len(lines) <= 20, recipe.title


def test_the_recipes_run_from_the_wheel(python: Path, tmp_path: Path) -> None:
    outputs = run_recipes(python, tmp_path, RECIPES)
    wrong = {title: output for title, output in outputs.items() if not re.search(OUTPUTS[title], output)}
    assert wrong == {}, wrong
    assert not re.search(r"warning|error|traceback", outputs[NOTEBOOK], re.IGNORECASE)


def check_types(python: Path, folder: Path, checker: str) -> set[tuple[str, int]]:
    """Check the recipes and the mistakes as a user's scripts. Return the file and line of each error."""
    for number, recipe in enumerate(RECIPES, 1):
        (folder / f"recipe_{number}.py").write_text(recipe.code, encoding="utf-8")
    (folder / "mistakes.py").write_text(MISTAKES, encoding="utf-8")
    (folder / "typings").mkdir()
    for package in UNTYPED:
        stub = "from typing import Any\ndef __getattr__(name: str) -> Any: ...\n"
        (folder / "typings" / f"{package}.pyi").write_text(stub, encoding="utf-8")
    (folder / "pyrightconfig.json").write_text("{}", encoding="utf-8")  # stubs are in its folder "typings"
    scripts = sorted(path.name for path in folder.glob("*.py"))
    if checker == "mypy":
        cache = str(ROOT / ".mypy_cache" / "scripts")  # reading torch's annotations takes half a minute, once
        options = ["--strict", "--output", "json", "--cache-dir", cache, "--python-executable", str(python)]
    else:
        options = ["--outputjson", "--pythonpath", str(python)]
    done = subprocess.run(
        [sys.executable, "-m", checker, *options, *scripts],
        cwd=folder, env=environment(MYPYPATH="typings"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr or done.stdout
    if checker == "mypy":
        found = [json.loads(line) for line in done.stdout.splitlines()]
        return {(each["file"], each["line"]) for each in found if each["severity"] == "error"}
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [each for each in found if each["severity"] == "error"]
    return {(Path(each["file"]).name, each["range"]["start"]["line"] + 1) for each in errors}


@pytest.mark.parametrize("checker", ["mypy", "pyright"])
def test_type_checkers_accept_the_recipes_and_report_mistakes(python: Path, tmp_path: Path, checker: str) -> None:
    if find_spec(checker) is None or (checker == "pyright" and not shutil.which("node")):
        pytest.skip(f"{checker} is not installed; pyright also needs node")
    mistakes = range(FIRST_MISTAKE, MISTAKES.count("\n") + 1)
    assert len(mistakes) == 10
    assert check_types(python, tmp_path, checker) == {("mistakes.py", line) for line in mistakes}
