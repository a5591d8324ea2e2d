"""`harden` and `train --hard`: what they print, what they save, and what they refuse."""

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


def test_train_hard_saves_and_shows_three_similarities(run: Run) -> None:
    done = run(
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
    assert (done.returncode, done.stderr) == (0, "")
    entry = Library().open("Fox")
    hard = entry.prompt.hard
    assert hard is not None
    assert (entry.revision, hard.tokens) == (1, 2)
    assert all(word.isalpha() for word in hard.text.split())
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("similarities")]
    figures = f"soft {entry.prompt.similarity:.4f}   readout {entry.prompt.readout_similarity:.4f}   hard readout {hard.similarity:.4f}"
    assert row.endswith(figures)
    assert hard.text in run("show", "Fox").stdout
    assert json.loads(run("show", "Fox", "--json").stdout)["hard"]["text"] == hard.text


def test_harden_adds_a_revision(run: Run) -> None:
    run("train", FOX, "-k", "2", "--name", "Fox", *QUICK)
    done = run("harden", "fox", "--tokens", "3", "--block", "FOX", "--seconds", "0.1", "--restarts", "1", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["name"], told["revision"], told["hard"]["tokens"], told["hard"]["method"]) == ("Fox", 2, 3, "exchange")
    assert "fox" not in told["hard"]["text"]
    done = run("harden", "fox", "--method", "pez", "--seconds", "0.1", "--quiet")
    hard = Library().open("fox").prompt.hard
    assert hard is not None
    assert (hard.tokens, hard.method) == (2, "pez")
    assert done.stdout.splitlines()[0].endswith(hard.text)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("train", FOX, "--hard-tokens", "4"), "Add --hard to search for a hard readout"),
        (("train", FOX, "--hard", "--hard-tokens", "0"), "from 1 to 64"),
        (("harden", "nothing"), "no soft prompt is named"),
        (("harden", "unknown", "--tokens", "3"), "its model is unknown"),
    ],
)
def test_what_makes_no_sense_is_refused(run: Run, args: tuple[str, ...], words: str) -> None:
    Library().save(a_prompt(name="unknown", model="", hard_prompt="a fox"))
    done = run(*args)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert words in done.stderr


def test_a_hard_readout_cannot_steer_the_terminal(run: Run) -> None:
    from softprompt.prompts.results import HardReadout

    Library().save(a_prompt(name="odd", hard=HardReadout("\x1b[31mred", 1, 0.5, None, "\x1b[2J", 3, 0.1)))
    assert "\x1b[31m" not in run("show", "odd").stdout
    assert "\x1b[2J" not in run("show", "odd").stdout
