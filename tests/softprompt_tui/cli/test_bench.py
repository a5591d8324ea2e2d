"""`softprompt-tui bench`: tables for people, one document for scripts, and what is there when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from softprompt.bench import hard
from softprompt.config import HardConfig
from tests.nursery import PIPE, Nursery

Run = Callable[..., subprocess.CompletedProcess[str]]
ONE_START = "from functools import partial\nfrom softprompt.bench import hard\nhard.HardConfig = partial(hard.HardConfig, restarts=1)\n"
SHORT = ("--quick", "--only", "hard", "--count", "1", "--seconds", "0.1")


@pytest.fixture(autouse=True)
def one_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches from one start, not four: each method has as long as a round of ours takes, and what is printed is the same."""
    monkeypatch.setattr(hard, "HardConfig", partial(HardConfig, restarts=1))


def test_scripts_get_one_document_with_every_table(run: Run) -> None:
    done = run("bench", *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert set(made) == {"machine", "plan", "steps", "batches", "time", "soft", "pairs", "hard", "figures", "complete"}
    assert made["complete"] is True
    assert made["machine"]["model"] == "mini"
    assert made["machine"]["gflops"] > 0
    assert made["plan"]["parts"] == ["hard"]
    assert [(row["tokens"], row["method"]) for row in made["hard"]] == [
        (k, method)
        for k in (4, 8)
        for method in ("ours", "ours, warm start", "fast PEZ", "stock PEZ", "copy of the first k")
    ]
    assert {row["kept"] for row in made["hard"] if row["method"].startswith("ours")} == {1}
    assert "hard error to stock PEZ's, k 8" in made["figures"]
    assert "hard quality: 8 tokens" in done.stderr


def test_people_get_a_table_and_a_users_own_prompts_are_measured_with(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("a red fox asleep in deep snow under tall pine trees at dusk\n")
    done = run("bench", *SHORT, "--prompts", str(path))
    assert done.returncode == 0, done.stderr
    assert "GFLOP/s" in done.stdout
    assert "hard readouts" in done.stdout
    assert "stock PEZ" in done.stdout
    assert "k 8 is skipped: no prompt has 16 to 75 tokens" in done.stderr


def test_what_was_measured_until_ctrl_c_is_printed(home: Path, nursery: Nursery) -> None:
    nursery.warm_vocabulary()
    process = nursery.start_command("bench", *SHORT, "--json", stdout=PIPE, stderr=PIPE, before=ONE_START)
    assert process.stderr is not None
    for line in process.stderr:
        if b"8 tokens" in line:
            process.send_signal(signal.SIGINT)
            break
    stdout, stderr = process.read_output()
    assert process.wait(60) == 130, stderr
    made = json.loads(stdout)
    assert made["complete"] is False
    assert {row["tokens"] for row in made["hard"]} == {4}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--only", "speeed"), "Use speed, time, soft, hard"),
        (("--count", "0"), "at least 1"),
        (("--seconds", "-1"), "greater than 0"),
        (("--batch", "1,many"), "not a list of whole numbers"),
        (("--prompts", "/nowhere/at-all.txt"), "cannot be read"),
        (("--tower", "ViT-B32"), "Close: ViT-B-32"),
        (("--tower", "ViT-B-32", "--model", "ViT-L-14"), "exclude each other"),
        (("--model", "minni"), "no model is named"),
    ],
)
def test_bad_input_is_said_before_anything_is_measured(run: Run, args: tuple[str, ...], said: str) -> None:
    done = run("bench", "--quick", *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
