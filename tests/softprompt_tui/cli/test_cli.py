"""The command line: what it prints, where, and how it ends."""

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

from tests.commands import all_commands
from tests.conftest import FOX
from tests.nursery import PIPE, Nursery

Run = Callable[..., subprocess.CompletedProcess[str]]
KEYS = (
    "id name hard_prompt model tokens similarity composition loss steps seconds steps_per_second stopped readout readout_text "
    "readout_similarity path warnings"
).split()  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> tuple[Path, dict[str, Any]]:
    """A home with one soft prompt, and what `train --json` printed of it."""
    home = tmp_path_factory.mktemp("trained")
    done = nursery.run(
        "train", FOX, "--tokens", "3", "--steps", "100", "--name", "Fox", "--json", SOFTPROMPT_HOME=str(home)
    )
    assert (done.returncode, done.stderr) == (0, "")
    return home, json.loads(done.stdout)


def test_train_prints_one_json_document(trained: tuple[Path, dict[str, Any]]) -> None:
    _, made = trained
    assert set(KEYS) <= set(made)
    assert (made["name"], made["hard_prompt"], made["model"], made["tokens"], made["stopped"]) == (
        "Fox",
        FOX,
        "mini",
        3,
        "steps",
    )
    assert made["similarity"] >= 0.995
    assert made["composition"]["mean"] >= 0.985
    assert made["composition"]["worst"] == min(grade["similarity"] for grade in made["composition"]["contexts"])
    assert [set(read) for read in made["readout"]] == [{"token", "cosine", "alternatives"}] * 3
    assert Path(made["path"]).is_file()
    assert made["warnings"] == []


def test_list_and_show_and_readout_find_it(trained: tuple[Path, dict[str, Any]], run: Run) -> None:
    home, made = trained
    at = {"SOFTPROMPT_HOME": str(home)}
    (listed,) = json.loads(run("list", "--json", **at).stdout)
    assert (listed["id"], listed["name"], listed["similarity"]) == (made["id"], "Fox", made["similarity"])
    assert "Fox" in run("list", **at).stdout
    shown = json.loads(run("show", "fox", "--json", **at).stdout)
    assert {key: shown[key] for key in KEYS} == {key: made[key] for key in KEYS}
    assert len(shown["losses"]) == made["steps"]
    read = json.loads(run("readout", made["id"], "--top", "3", "--json", **at).stdout)
    assert read["readout_text"] == made["readout_text"]
    assert read["readout_similarity"] == pytest.approx(made["readout_similarity"], abs=1e-5)
    assert [len(near) for near in read["neighbours"]] == [3, 3, 3]
    shown_for_people = run("readout", "fox", "--top", "20", COLUMNS="60", **at).stdout
    assert "[v3]" in shown_for_people
    neighbours = shown_for_people[shown_for_people.index("[v1]") :].splitlines()
    assert len(neighbours) > 20
    assert max(map(len, neighbours)) <= 60


def test_show_draws_the_loss_curve_within_the_terminals_width(trained: tuple[Path, dict[str, Any]], run: Run) -> None:
    done = run("show", "fox", SOFTPROMPT_HOME=str(trained[0]), COLUMNS="60")
    lines = done.stdout.splitlines()
    assert "loss" in done.stdout
    curve = lines[next(i for i, line in enumerate(lines) if "┌" in line) :]
    assert max(map(len, curve)) <= 60
    assert any(re.search(r"0\.\d+┤", line) for line in curve)
    assert any("\u2800" < char < "\u28ff" for line in curve for char in line)
    assert "\x1b" not in done.stdout


def test_a_soft_prompt_of_other_weights_is_not_read_out(
    trained: tuple[Path, dict[str, Any]], run: Run, home: Path
) -> None:
    from dataclasses import replace

    from softprompt import Library

    prompt = Library(trained[0] / "data").open("fox").prompt
    Library(home / "data").save(replace(prompt, model_fingerprint="0123"))
    done = run("readout", "fox")
    assert done.returncode == 2
    assert "was trained on other weights of mini (0123)" in done.stderr


def test_compare_shows_which_texts_are_alike(run: Run) -> None:
    table = json.loads(run("compare", "a lake at sunrise", "dawn over still water", "a red car", "--json").stdout)[
        "similarities"
    ]
    assert table[0][0] == pytest.approx(1, abs=1e-5)
    assert table[0][1] == table[1][0] > table[0][2]
    assert "1.0000" in run("compare", "a lake", "a sea").stdout


def test_models_are_listed_and_filtered(run: Run) -> None:
    done = run("models", "vitl14", "openai", "--json")
    found = json.loads(done.stdout)
    assert {"ViT-L-14/openai", "ViT-L-14-quickgelu/openai"} <= {info["name"] for info in found}
    assert found[0].keys() == {
        "name",
        "width",
        "layers",
        "context",
        "parameters",
        "on_disk",
        "needs_transformers",
        "refused",
    }
    assert all("L-14" in info["name"] and "openai" in info["name"] for info in found)
    assert json.loads(run("models", "vtL14opnai", "--json").stdout)[0]["name"].startswith(
        "ViT-L-14"
    )  # letters in order
    first = run("models").stdout.splitlines()
    assert first[1].startswith("mini")
    assert "built in" in first[1]
    assert run("models", "zzzzzz").stderr.strip().endswith("`softprompt-tui models` lists all.")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["train", ""], "the prompt is empty"),
        (["train", "   "], "the prompt is empty"),
        (["train", "a", "--tokens", "0"], "tokens is 0; it must be a whole number from 1 to 4,096"),
        (["train", "a", "--tokens", "76"], "tokens is 76, but mini has room for 75"),
        (["train", "a", "--tokens", "many"], "neither a whole number nor auto"),
        (["train", "a", "--model", "minni"], "Close: mini"),
        (["train", " ".join(["fox"] * 8000)], "the prompt has 8,000 tokens, but mini takes 75"),
        (["train", "a", "--rate", "nan"], "rate is nan"),
        (["train", "a", "--device", "cuda:7"], "'cuda:7' is not on this machine"),
        (["train", "a", "--name", "../x"], "the name has the character '.'"),
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
def test_bad_input_ends_with_2_and_one_clear_line(run: Run, home: Path, args: list[str], said: str) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    message = [line for line in done.stderr.splitlines() if line and not line.startswith(("Usage:", "Try "))]
    assert len(message) == 1
    entries = home / "data" / "library" / "entries"
    assert not entries.exists() or list(entries.iterdir()) == []


def test_a_home_that_cannot_be_written_is_bad_input(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("train", "a fox", SOFTPROMPT_HOME=str(tmp_path / "file"))
    assert done.returncode == 2
    assert "Set SOFTPROMPT_HOME to a folder that you can write to" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_would_steer_the_terminal_is_shown_inert(run: Run) -> None:
    prompt = "a fox \x1b[31m[/bold] \u202e in [red]snow[/red]"
    done = run("train", prompt, "--tokens", "1", "--steps", "5", "--name", "odd")
    assert done.returncode == 0, done.stderr
    assert "a fox ␛[31m[/bold] \\u202e in [red]snow[/red]" in done.stdout
    for command in (["list"], ["show", "odd"], ["list", "--json"]):
        shown = run(*command)
        assert shown.returncode == 0
        assert "\x1b" not in shown.stdout
        assert "\u202e" not in shown.stdout
    assert json.loads(run("list", "--json").stdout)[0]["hard_prompt"] == prompt


def test_the_prompt_can_come_from_standard_input(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "softprompt_tui", "train", "-", "--tokens", "1", "--steps", "5", "--json"],
        input=FOX + "\n", env=os.environ | {"SOFTPROMPT_HOME": str(home)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["hard_prompt"] == FOX


def test_standard_input_that_is_no_text_is_bad_input(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "softprompt_tui", "train", "-"],
        input=b"\xff\xfe",
        env=os.environ | {"SOFTPROMPT_HOME": str(home)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert (
        done.stderr == b"softprompt-tui: the prompt is not valid UTF-8: character 1 cannot be read. Use UTF-8 text.\n"
    )


def test_settings_reach_the_training(run: Run) -> None:
    done = run("train", FOX, "-k", "2", "--steps", "7", "--no-contexts", "--no-norm-projection", "--restarts", "2", "--seed", "5",
               "--objective", "mse", "--init", "vocabulary", "--rate", "0.2", "--patience", "5", "--json")  # fmt: skip
    config = json.loads(done.stdout)["config"]
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
    again = run(
        "train",
        "a red fox awake",
        "--from",
        json.loads(done.stdout)["name"],
        "-k",
        "2",
        "--steps",
        "3",
        "--context",
        "one {} here",
        "--json",
    )
    config = json.loads(again.stdout)["config"]
    assert (config["init"], config["contexts"]) == ("soft", ["one {} here"])


def test_ctrl_c_keeps_the_best_so_far(home: Path, nursery: Nursery) -> None:
    """On a real terminal: the progress bar is there, one Ctrl-C ends the training, and the result is saved and shown."""
    master, slave = pty.openpty()
    args = ("train", FOX, "--tokens", "2", "--steps", "50000", "--no-contexts", "--json")
    process = nursery.start_command(*args, stdin=slave, stdout=PIPE, stderr=slave, TERM="xterm", COLUMNS="120")
    os.close(slave)
    seen = b""
    while b"steps/s" not in seen:
        seen += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    made = json.loads(process.stdout.read())
    assert process.wait() == 130
    process.stdout.close()
    os.close(master)
    assert made["stopped"] == "interrupted"
    assert 0 < made["steps"] < 50_000
    assert Path(made["path"]).is_file()
    assert b"similarity" in seen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(run: Run, shell: str) -> None:
    assert "_SOFTPROMPT_TUI_COMPLETE" in run("completion", shell).stdout


def completed(line: str, **environment: str) -> list[str]:
    """What a shell is told when Tab is pressed at the end of `line`."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_SOFTPROMPT_TUI_COMPLETE": "bash_complete"}
    script = "import sys; sys.argv = ['softprompt-tui']; from softprompt_tui.cli import entry; entry()"
    surroundings = os.environ | words | environment
    done = subprocess.run([sys.executable, "-c", script], env=surroundings, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_saved_names_are_completed(trained: tuple[Path, dict[str, Any]]) -> None:
    assert completed("softprompt-tui show f", SOFTPROMPT_HOME=str(trained[0])) == ["plain,Fox"]


def test_commands_and_options_are_completed() -> None:
    assert completed("softprompt-tui models pu") == ["plain,pull"]
    assert completed("softprompt-tui re") == ["plain,readout", "plain,rename", "plain,restore"]
    assert completed("softprompt-tui --vers") == ["plain,--version"]


def test_every_command_teaches_with_an_example(run: Run) -> None:
    commands = {(name,): command for name, command in all_commands().items()}
    for name, group in all_commands().items():
        commands |= {
            (name, inner): command for inner, command in getattr(group, "commands", {}).items() if not command.hidden
        }
    for path, command in commands.items():
        assert command.help
        assert f"softprompt-tui {' '.join(path)}" in command.help
        assert run(*path, "--help").returncode == 0


def test_help_shows_what_there_is(run: Run) -> None:
    done = run("--help")
    assert done.returncode == 0
    assert "Commands:" in done.stdout.splitlines()
    assert "Without a command, it opens the interface" in " ".join(done.stdout.split())


def test_the_version_is_the_distributions(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").stdout.strip() == f"softprompt-tui, version {version('softprompt-tui')}"
