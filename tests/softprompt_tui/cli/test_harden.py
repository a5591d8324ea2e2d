"""`harden` and `train --hard`: output, saved entries and bad input."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from softprompt import Library
from tests.conftest import FOX
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ("--steps", "20", "--no-contexts", "--quiet")


def test_train_hard_saves_a_hard_readout_and_prints_three_similarities(run: Run) -> None:
    result = run(
        "train",
        FOX,
        "-k",
        "2",
        "--name",
        "Fox",
        "--hard",
        "--hard-seconds",
        "0.1",
        "--hard-words",
        "dictionary",
        *QUICK,
    )
    assert (result.returncode, result.stderr) == (0, "")
    entry = Library().open("Fox")
    hard = entry.prompt.hard
    assert hard is not None
    assert (entry.revision, hard.tokens) == (1, 2)
    assert all(word.isalpha() for word in hard.text.split())
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("similarities")]
    figures = (
        f"soft {entry.prompt.similarity:.4f}   readout {entry.prompt.readout_similarity:.4f}   "
        f"hard readout {hard.similarity:.4f}"
    )
    assert row.endswith(figures)
    assert hard.text in run("show", "Fox").stdout
    assert json.loads(run("show", "Fox", "--json").stdout)["hard"]["text"] == hard.text


def test_harden_saves_a_hard_readout_as_a_new_revision(run: Run) -> None:
    run("train", FOX, "-k", "2", "--name", "Fox", *QUICK)
    result = run("harden", "fox", "--tokens", "3", "--block", "FOX", "--seconds", "0.1", "--restarts", "1", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert (document["name"], document["revision"], document["hard"]["tokens"], document["hard"]["method"]) == (
        "Fox",
        2,
        3,
        "exchange",
    )
    assert "fox" not in document["hard"]["text"]
    result = run("harden", "fox", "--method", "pez", "--seconds", "0.1", "--quiet")
    hard = Library().open("fox").prompt.hard
    assert hard is not None
    assert (hard.tokens, hard.method) == (2, "pez")
    assert result.stdout.splitlines()[0].endswith(hard.text)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", FOX, "--hard-tokens", "4"), "Add --hard to search for a hard readout"),
        (("train", FOX, "--hard", "--hard-tokens", "0"), "from 1 to 64"),
        (("harden", "nothing"), "no soft prompt is named"),
        (("harden", "unknown", "--tokens", "3"), "its model is unknown"),
    ],
)
def test_bad_input_is_refused(run: Run, args: tuple[str, ...], message: str) -> None:
    Library().save(a_prompt(name="unknown", model="", hard_prompt="a fox"))
    result = run(*args)
    assert result.returncode in (1, 2)
    assert result.stdout == ""
    assert message in result.stderr


def test_control_characters_in_a_hard_readout_never_reach_the_terminal(run: Run) -> None:
    from softprompt.prompts.results import HardReadout

    Library().save(a_prompt(name="odd", hard=HardReadout("\x1b[31mred", 1, 0.5, None, "\x1b[2J", 3, 0.1)))
    assert "\x1b[31m" not in run("show", "odd").stdout
    assert "\x1b[2J" not in run("show", "odd").stdout
