"""`softprompt-tui tune`: training on a file of examples, what is printed and kept, and bad files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from softprompt import Library
from softprompt_tui.rendering.details import entry_facts
from tests.softprompt.conftest import CHATML
from tests.worker_process import Home, events, wait_for_run

Run = Callable[..., subprocess.CompletedProcess[str]]
PAIRS = [(f"What is {number}?", "even" if number % 2 == 0 else "odd") for number in range(8)]
SHORT = ("-k", "2", "--steps", "2", "-q")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of a tiny random language model."""
    from tests.softprompt.encoders.causal_lm.tiny_models import save_model

    folder = save_model("Llama", tmp_path_factory.mktemp("tiny"), CHATML, max_position_embeddings=512)
    return f"local-dir:{folder}"


def write(path: Path, *pairs: tuple[str, str]) -> str:
    path.write_text("".join(json.dumps({"input": text, "output": output}) + "\n" for text, output in pairs))
    return str(path)


def test_it_prints_a_table_and_saves_under_the_name_of_the_file(run: Run, tmp_path: Path, model: str) -> None:
    file = write(tmp_path / "numbers.jsonl", *PAIRS)
    done = run("tune", file, "--model", model, *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split("  ")[0].strip() for line in done.stdout.splitlines()]
    assert lines[:2] == ["name", "hard prompt"]
    assert "6 examples of numbers.jsonl" in done.stdout
    assert "2 more held out" in done.stdout
    table = lines[lines.index("on held-out examples") :]
    assert table[1:5] == ["soft prompt", "untrained", "few-shot, 6 of 6 examples", "no prompt"]
    assert [entry.name for entry in Library().list().entries] == ["numbers"]
    shown = [line for line in run("show", "numbers").stdout.splitlines() if not line.startswith("settings")]
    assert [line for line in done.stdout.splitlines() if not line.startswith("settings")] == shown[: len(lines) - 1]
    assert "the nearest words mostly show where training began" in run("readout", "numbers").stdout
    labels = [label for label, _ in entry_facts(Library().open("numbers")).rows]
    assert {"examples", "placement", *table[1:5]} <= set(labels)
    again = json.loads(run("tune", file, "--model", model, *SHORT, "--json").stdout)
    assert again["name"] == "numbers-2"
    assert again["examples"]["training"]["count"] == 6
    assert again["similarity"] == again["examples"]["score"]["accuracy"]


def test_a_file_of_its_own_can_be_held_out(run: Run, tmp_path: Path, model: str) -> None:
    training, graded = write(tmp_path / "a.jsonl", *PAIRS[:5]), write(tmp_path / "b.jsonl", *PAIRS[5:])
    done = run("tune", training, "--held-out", graded, "--model", model, *SHORT, "--name", "mine")
    assert "3 of b.jsonl" in done.stdout
    assert Library().open("mine").prompt.hard_prompt == "5 examples of a.jsonl"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("none.jsonl",),
            "cannot read none.jsonl: No such file or directory. Use a file with one JSON object",
        ),
        (("bad.jsonl",), "line 2 of bad.jsonl is not JSON: Expecting value at character 1. Write one object"),
        (("few.jsonl",), "the number of examples to train and to grade on is 2 in few.jsonl. Use at least 4."),
        (("good.jsonl", "--held-out", "good.jsonl"), "has the same input, and training must not see it"),
        (("good.jsonl", "--tokens", "0"), "tokens is 0; it must be a whole number from 1"),
        (("good.jsonl", "--init", "first"), "Use --init vocabulary, or set --instruction."),
        (("good.jsonl", "--model", "mini"), "the objective is examples, which needs a language model, but mini is"),
        (("good.jsonl", "--name", "a/b"), "the name contains '/'"),
    ],
)
def test_what_cannot_be_tuned_is_one_line(
    args: tuple[str, ...], message: str, run: Run, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "good.jsonl", *PAIRS)
    write(tmp_path / "few.jsonl", *PAIRS[:2])
    (tmp_path / "bad.jsonl").write_text('{"input": "a", "output": "b"}\na,b\n')
    done = run("tune", *args, *(() if "--model" in args else ("--model", model)), "-q")
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not Library().list().total


def test_a_background_run_carries_its_examples(worker: Home, run: Run, tmp_path: Path, model: str) -> None:
    file = write(tmp_path / "numbers.jsonl", *PAIRS)
    run_id = run("tune", file, "--model", model, "-k", "2", "--steps", "50000", "--background").stdout.strip()
    Path(file).unlink()  # the run has its own copy
    with worker.client() as client:
        before = next(event["step"] for event in events(client) if event["type"] == "report")
        assert run("runs", "pause", run_id).returncode == 0
        wait_for_run(client, run_id, lambda summary: summary["state"] == "paused")
        assert run("runs", "resume", run_id).returncode == 0
        after = next(event["step"] for event in events(client) if event["type"] == "report")
    assert "6 examples of numbers.jsonl" in run("stop", run_id).stdout
    prompt = Library().open("numbers").prompt
    assert before < after <= prompt.steps
    assert prompt.examples is not None
    assert prompt.examples.held_out.count == 2


def test_too_many_examples_for_a_request_are_not_submitted(run: Run, tmp_path: Path, model: str) -> None:
    file = write(tmp_path / "long.jsonl", *((f"{number} {'x' * 15_000}", "y") for number in range(300)))
    done = run("tune", file, "--model", model, "--background")
    assert done.returncode == 2
    assert "the examples take 4.5 MB, but a background run has room for 4.2 MB. Leave out --background" in done.stderr


def test_train_sends_examples_to_tune(run: Run) -> None:
    done = run("train", "a prompt", "--objective", "examples")
    assert done.returncode == 2
    assert "`softprompt-tui tune FILE` trains on examples" in done.stderr


def test_a_sweep_of_a_language_model_has_its_own_figures(run: Run, tmp_path: Path, model: str) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("".join(f"What is {number}?\n" for number in range(8)))
    options = ("--tokens", "1,2", "--steps", "2", "--questions", str(questions), "-q")
    done = run("sweep", "Say even or odd.", "--model", model, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:4] == ["tokens", "KL", "share", "agreement"]
    assert "1 - similarity" not in done.stdout
    assert " KL" in done.stdout[done.stdout.index("knee") :]
