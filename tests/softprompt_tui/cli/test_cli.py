"""The command line: output, streams and exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from softprompt_tui.cli import main
from tests.commands import all_paths
from tests.conftest import FOX
from tests.nursery import PIPE, Nursery

Run = Callable[..., subprocess.CompletedProcess[str]]
KEYS = (
    "id name hard_prompt model tokens similarity composition loss steps seconds steps_per_second stopped readout "
    "readout_text readout_similarity path warnings"
).split()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> tuple[Path, dict[str, Any]]:
    """Return a home with one soft prompt, and the document that `train --json` printed for it."""
    home = tmp_path_factory.mktemp("trained")
    result = nursery.run(
        "train", FOX, "--tokens", "3", "--steps", "100", "--name", "Fox", "--json", SOFTPROMPT_HOME=str(home)
    )
    assert (result.returncode, result.stderr) == (0, "")
    return home, json.loads(result.stdout)


def test_train_prints_one_json_document(trained: tuple[Path, dict[str, Any]]) -> None:
    _, document = trained
    assert set(KEYS) <= set(document)
    assert (document["name"], document["hard_prompt"], document["model"], document["tokens"], document["stopped"]) == (
        "Fox",
        FOX,
        "mini",
        3,
        "steps",
    )
    assert document["similarity"] >= 0.995
    assert document["composition"]["mean"] >= 0.985
    assert document["composition"]["worst"] == min(grade["similarity"] for grade in document["composition"]["contexts"])
    assert [set(token) for token in document["readout"]] == [{"token", "cosine", "alternatives"}] * 3
    assert Path(document["path"]).is_file()
    assert document["warnings"] == []


def test_list_show_and_readout_agree_with_train(trained: tuple[Path, dict[str, Any]], run: Run) -> None:
    home, document = trained
    environment = {"SOFTPROMPT_HOME": str(home)}
    (entry,) = json.loads(run("list", "--json", **environment).stdout)
    assert (entry["id"], entry["name"], entry["similarity"]) == (document["id"], "Fox", document["similarity"])
    assert "Fox" in run("list", **environment).stdout
    details = json.loads(run("show", "fox", "--json", **environment).stdout)
    assert {key: details[key] for key in KEYS} == {key: document[key] for key in KEYS}
    assert len(details["losses"]) == document["steps"]
    readout = json.loads(run("readout", document["id"], "--top", "3", "--json", **environment).stdout)
    assert readout["readout_text"] == document["readout_text"]
    assert readout["readout_similarity"] == pytest.approx(document["readout_similarity"], abs=1e-5)
    assert [len(neighbours) for neighbours in readout["neighbours"]] == [3, 3, 3]
    table = run("readout", "fox", "--top", "20", COLUMNS="60", **environment).stdout
    assert "[v3]" in table
    lines = table[table.index("[v1]") :].splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= 60


def test_show_draws_the_loss_curve_within_the_terminals_width(trained: tuple[Path, dict[str, Any]], run: Run) -> None:
    result = run("show", "fox", SOFTPROMPT_HOME=str(trained[0]), COLUMNS="60")
    lines = result.stdout.splitlines()
    assert "loss" in result.stdout
    curve = lines[next(i for i, line in enumerate(lines) if "┌" in line) :]
    assert max(map(len, curve)) <= 60
    assert any(re.search(r"0\.\d+┤", line) for line in curve)
    assert any("\u2800" < char < "\u28ff" for line in curve for char in line)
    assert "\x1b" not in result.stdout


def test_readout_refuses_a_soft_prompt_of_other_weights(
    trained: tuple[Path, dict[str, Any]], run: Run, home: Path
) -> None:
    from dataclasses import replace

    from softprompt import Library

    prompt = Library(trained[0] / "data").open("fox").prompt
    Library(home / "data").save(replace(prompt, model_fingerprint="0123"))
    result = run("readout", "fox")
    assert result.returncode == 2
    assert "was trained on different weights of mini (0123)" in result.stderr


def test_compare_prints_the_similarities_of_all_pairs(run: Run) -> None:
    similarities = json.loads(
        run("compare", "a lake at sunrise", "dawn over still water", "a red car", "--json").stdout
    )["similarities"]
    assert similarities[0][0] == pytest.approx(1, abs=1e-5)
    assert similarities[0][1] == similarities[1][0] > similarities[0][2]
    assert "1.0000" in run("compare", "a lake", "a sea").stdout


def test_models_are_listed_and_filtered(run: Run) -> None:
    result = run("models", "vitl14", "openai", "--json")
    models = json.loads(result.stdout)
    assert {"ViT-L-14/openai", "ViT-L-14-quickgelu/openai"} <= {model["name"] for model in models}
    assert models[0].keys() == {
        "name",
        "kind",
        "width",
        "layers",
        "context",
        "parameters",
        "on_disk",
        "needs_transformers",
        "refused",
        "repository",
        "bytes",
        "partial_bytes",
        "read_by",
        "same_as",
    }
    assert all("L-14" in model["name"] and "openai" in model["name"] for model in models)
    # a filter also matches names that contain its letters in order
    assert json.loads(run("models", "vtL14opnai", "--json").stdout)[0]["name"].startswith("ViT-L-14")
    lines = run("models").stdout.splitlines()
    assert lines[1].startswith("mini")
    assert "built in" in lines[1]
    assert run("models", "zzzzzz").stderr.strip().endswith("`softprompt-tui models` lists all.")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", ""], "the prompt is empty"),
        (["train", "   "], "the prompt is empty"),
        (["train", "a", "--tokens", "0"], "tokens is 0; it must be a whole number from 1 to 4,096"),
        (["train", "a", "--tokens", "76"], "tokens is 76, but mini has room for 75"),
        (["train", "a", "--tokens", "many"], "neither a whole number nor auto"),
        (["train", "a", "--model", "minni"], "Close: mini"),
        (["train", " ".join(["fox"] * 8000)], "the prompt has 8,000 tokens, but mini has room for 75"),
        (["train", "a", "--rate", "nan"], "rate is nan"),
        (["train", "a", "--device", "cuda:7"], "this machine has no device 'cuda:7'"),
        (["train", "a", "--name", "../x"], "the name contains '.'"),
        (["train", "a", "--from", "nobody"], "no soft prompt is named 'nobody'"),
        (["train", "a", "--init", "soft"], "--from NAME"),
        (["train", "a", "--context", "{}", "--no-contexts"], "exclude each other"),
        (["train", "a", "--objective", "contrastive"], "needs at least one prompt"),
        (["train"], "Missing argument 'PROMPT'"),
        (["show", "nobody"], "no soft prompt is named 'nobody'"),
        (["compare", "a"], "at least two"),
        (["models", "pull", "nothing"], "no model is named 'nothing'"),
        (["nonsense"], "No such command"),
        (["show", "a", "\x1b]0;title\x07"], "unexpected extra argument (␛]0;title␇)"),
    ],
)
def test_bad_input_exits_with_2_and_a_one_line_message(run: Run, home: Path, args: list[str], message: str) -> None:
    result = run(*args)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    message_lines = [line for line in result.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(message_lines) == 1
    entries = home / "data" / "library" / "entries"
    assert not entries.exists() or list(entries.iterdir()) == []


def test_a_home_that_is_not_writable_is_bad_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("train", "a fox", SOFTPROMPT_HOME=str(tmp_path / "file"))
    assert result.returncode == 2
    assert "set SOFTPROMPT_HOME to a folder that you can write to" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_control_characters_in_a_prompt_never_reach_the_terminal(run: Run) -> None:
    prompt = "a fox \x1b[31m[/bold] \u202e in [red]snow[/red]"
    result = run("train", prompt, "--tokens", "1", "--steps", "5", "--name", "odd")
    assert result.returncode == 0, result.stderr
    assert "a fox ␛[31m[/bold] \\u202e in [red]snow[/red]" in result.stdout
    for command in (["list"], ["show", "odd"], ["list", "--json"]):
        result = run(*command)
        assert result.returncode == 0
        assert "\x1b" not in result.stdout
        assert "\u202e" not in result.stdout
    assert json.loads(run("list", "--json").stdout)[0]["hard_prompt"] == prompt


def test_train_reads_the_prompt_from_standard_input(home: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "softprompt_tui", "train", "-", "--tokens", "1", "--steps", "5", "--json"],
        input=FOX + "\n",
        env=os.environ | {"SOFTPROMPT_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(result.stdout)["hard_prompt"] == FOX


def test_standard_input_that_is_not_utf_8_is_bad_input(home: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "softprompt_tui", "train", "-"],
        input=b"\xff\xfe",
        env=os.environ | {"SOFTPROMPT_HOME": str(home)},
        capture_output=True,
        check=False,
    )
    assert result.returncode == 2
    message = b"the prompt is not valid UTF-8: character 1 cannot be decoded. Use UTF-8 text."
    assert result.stderr == b"softprompt-tui: " + message + b"\n"


def test_options_reach_the_training(run: Run) -> None:
    result = run(
        "train",
        FOX,
        "-k",
        "2",
        "--steps",
        "7",
        "--no-contexts",
        "--no-norm-projection",
        "--restarts",
        "2",
        "--seed",
        "5",
        "--objective",
        "mse",
        "--init",
        "vocabulary",
        "--rate",
        "0.2",
        "--patience",
        "5",
        "--json",
    )
    config = json.loads(result.stdout)["config"]
    expected = {
        "tokens": 2,
        "steps": 7,
        "contexts": [],
        "project_norm": False,
        "restarts": 2,
        "seed": 5,
        "objective": "mse",
        "init": "vocabulary",
        "rate": 0.2,
        "patience": 5,
    }
    assert {key: config[key] for key in expected} == expected
    second = run(
        "train",
        "a red fox awake",
        "--from",
        json.loads(result.stdout)["name"],
        "-k",
        "2",
        "--steps",
        "3",
        "--context",
        "one {} here",
        "--json",
    )
    config = json.loads(second.stdout)["config"]
    assert (config["init"], config["contexts"]) == ("soft", ["one {} here"])


def test_ctrl_c_saves_the_best_result_so_far(home: Path, nursery: Nursery) -> None:
    """On a terminal with a progress bar, one Ctrl-C ends the training. The command saves and prints the result."""
    master, slave = pty.openpty()
    args = ("train", FOX, "--tokens", "2", "--steps", "50000", "--no-contexts", "--json")
    process = nursery.start_command(*args, stdin=slave, stdout=PIPE, stderr=slave, TERM="xterm", COLUMNS="120")
    os.close(slave)
    output = b""
    while b"steps/s" not in output:
        output += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    document = json.loads(process.stdout.read())
    assert process.wait() == 130
    process.stdout.close()
    os.close(master)
    assert document["stopped"] == "interrupted"
    assert 0 < document["steps"] < 50_000
    assert Path(document["path"]).is_file()
    assert b"similarity" in output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(run: Run, shell: str) -> None:
    assert "_SOFTPROMPT_TUI_COMPLETE" in run("completion", shell).stdout


def complete_line(line: str, **environment: str) -> list[str]:
    """Return the completions that a shell gets when the user presses Tab at the end of `line`."""
    completion = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_SOFTPROMPT_TUI_COMPLETE": "bash_complete"}
    script = "import sys; sys.argv = ['softprompt-tui']; from softprompt_tui.cli import entry; entry()"
    full_environment = os.environ | completion | environment
    result = subprocess.run(
        [sys.executable, "-c", script], env=full_environment, capture_output=True, text=True, check=True
    )
    return result.stdout.split()


def test_saved_names_are_completed(trained: tuple[Path, dict[str, Any]]) -> None:
    assert complete_line("softprompt-tui show f", SOFTPROMPT_HOME=str(trained[0])) == ["plain,Fox"]


def test_commands_and_options_are_completed() -> None:
    assert complete_line("softprompt-tui models pu") == ["plain,pull"]
    assert complete_line("softprompt-tui re") == ["plain,readout", "plain,rename", "plain,restore"]
    assert complete_line("softprompt-tui --vers") == ["plain,--version"]


def test_the_help_of_every_command_has_an_example(run: Run) -> None:
    for path, command in all_paths().items():
        assert command.help
        assert f"softprompt-tui {' '.join(path)}" in command.help
        assert run(*path, "--help").returncode == 0


@pytest.mark.parametrize("columns", [60, 80, 110])
def test_the_help_of_every_command_fits_the_terminal(run: Run, columns: int) -> None:
    for path, command in {(): main, **all_paths()}.items():
        text = run(*path, "--help", COLUMNS=str(columns)).stdout
        assert [line for line in text.splitlines() if len(line) > columns] == [], path
        assert not re.search(r"\w\.\.\.$", text.partition("Options:")[2], re.MULTILINE), f"{path} cuts a sentence"
        # whoever copies an example that is broken into lines gets the same command
        unbroken = re.sub(r" \\\n +", " ", text).splitlines()
        for line in (command.help or "").splitlines():
            assert not line.startswith("  softprompt-tui") or f"  {line}" in unbroken, f"{path}: {line}"


def test_help_lists_the_commands_and_mentions_the_interface(run: Run) -> None:
    result = run("--help")
    assert result.returncode == 0
    assert "Commands:" in result.stdout.splitlines()
    assert "Without a command, it opens the interface" in " ".join(result.stdout.split())


def test_version_prints_the_version_of_the_distribution(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").stdout.strip() == f"softprompt-tui, version {version('softprompt-tui')}"
