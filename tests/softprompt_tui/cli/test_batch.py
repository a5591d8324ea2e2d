"""`softprompt-tui batch`: output, exit codes, priority, and continuing after an interruption or a kill."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from softprompt import BatchProgress, Library
from softprompt.encoders.catalog import MINI_FOLDER
from softprompt.system.priority import BATCH_NICENESS
from softprompt_tui.cli import progress
from softprompt_tui.cli.commands import batch as batch_command_module
from softprompt_tui.cli.commands.batch import BatchDisplay
from tests.conftest import BOAT, FOX
from tests.nursery import Nursery
from tests.worker_process import nicenesses, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
SHORT = ("-k", "2", "--steps", "4", "--no-contexts")
FIELDS = (
    "line state prompt id name model tokens similarity composed worst floor steps seconds readout_text "
    "readout_similarity error"
).split()


@pytest.fixture
def prompt_file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(f"# two\n{FOX}\n\n{BOAT}\n")
    return path


def batch_command(*args: object) -> list[str]:
    return [sys.executable, "-m", "softprompt_tui", "batch", *map(str, args)]


def test_each_prompt_gives_one_json_line(run: Run, prompt_file: Path) -> None:
    result = run("batch", str(prompt_file), *SHORT, "--tag", "lot")
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert [list(record) for record in records] == [FIELDS, FIELDS]
    assert {(record["line"], record["prompt"], record["state"]) for record in records} == {
        (2, FOX, "trained"),
        (4, BOAT, "trained"),
    }
    assert result.returncode == 0
    assert "2 of 2 prompts: 2 trained at" in result.stderr
    assert {entry.name for entry in Library().list(tags=["lot"]).entries} == {record["name"] for record in records}
    second = run("batch", str(prompt_file), *SHORT, "--quiet")
    assert [json.loads(line)["state"] for line in second.stdout.splitlines()] == ["before", "before"]
    assert "2 of 2 prompts: 0 trained, 2 from before" in second.stderr


def test_a_failing_prompt_sets_exit_code_1_and_the_others_are_trained(run: Run, prompt_file: Path) -> None:
    prompt_file.write_bytes(f"{FOX}\n{'fox ' * 300}\n\x1b]0;title\x07\xff\n".encode("latin-1"))
    result = run("batch", str(prompt_file), *SHORT)
    records = {record["line"]: record for record in map(json.loads, result.stdout.splitlines())}
    assert result.returncode == 1
    assert records[1]["error"] is None
    assert records[2]["error"]["kind"] == "PromptTooLong"
    assert "not valid UTF-8" in records[3]["error"]["message"]
    assert "3 prompts: 1 trained" in result.stderr
    assert "2 failed" in result.stderr
    assert "\x1b" not in result.stdout + result.stderr


def test_csv_from_standard_input_sets_options_for_each_prompt(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    text = f"caption;tokens;url\n{FOX};1;x\n{BOAT};;y\n"

    class Stdin:
        buffer = io.BytesIO(text.encode())

    monkeypatch.setattr(sys, "stdin", Stdin())
    out = tmp_path / "results.jsonl"
    result = run(
        "batch", "-", "--format", "csv", "--column", "caption", "--steps", "4", "--no-contexts", "--out", str(out)
    )
    assert (result.returncode, result.stdout) == (0, "")
    assert "not used: url" in result.stderr
    records = {record["line"]: record for record in map(json.loads, out.read_text().splitlines())}
    assert (records[2]["tokens"], records[3]["tokens"]) == (1, 3)
    assert Library().open(records[2]["id"]).prompt.config["contexts"] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nothing.txt"], "cannot read nothing.txt: No such file"),
        (["."], "cannot read .: Is a directory"),
        (["FILE", "--tokens", "0"], "tokens is 0"),
        (["FILE", "--init", "soft"], "which a batch cannot use"),
        (["FILE", "--together", "0"], "not in the range"),
        (["FILE", "--tag", ""], "tag"),
        (["FILE", "--model", "minni"], "Close: mini"),
        (["FILE", "--out", "FILE"], "the file with the prompts"),
        (["FILE", "--format", "csv"], "no column named 'prompt'"),
        (["FILE", "--format", "xml"], "is not one of"),
        ([str(MINI_FOLDER / "model.safetensors")], "model.safetensors is not text: byte 3 is a NUL"),
        ([], "Missing argument 'FILE'"),
    ],
)
def test_bad_input_exits_with_2_and_a_one_line_message(
    run: Run, prompt_file: Path, home: Path, args: list[str], message: str
) -> None:
    result = run("batch", *(str(prompt_file) if arg == "FILE" else arg for arg in args))
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert Library().list().entries == []


def test_after_kills_every_prompt_has_exactly_one_result(home: Path, tmp_path: Path, nursery: Nursery) -> None:
    """The command is killed after 1, 5 and 9 results, and then runs to its end."""
    path, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    prompts = [
        f"a {colour} {animal} on a hill"
        for colour in ("red", "blue", "old")
        for animal in ("fox", "cat", "owl", "horse")
    ]
    path.write_text("\n".join(prompts))
    args = ("batch", f"{path}", "-k", "1", "--steps", "20", "--no-contexts", "--together", "3", "--out", f"{out}")
    kills = 0
    for result_count in (1, 5, 9):
        process = nursery.start_command(*args)
        wait_until(
            lambda: (
                process.poll() is not None  # noqa: B023
                or (out.exists() and len(out.read_bytes().splitlines()) >= result_count)  # noqa: B023
            ),
            60,
        )
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills
    result = nursery.run(*args)
    assert result.returncode == 0
    assert f"{len(prompts)} of {len(prompts)} prompts" in result.stderr
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(record["prompt"] for record in records) == sorted(prompts)
    entries = Library().list().entries
    assert sorted(entry.id for entry in entries) == sorted(record["id"] for record in records)
    assert sorted(Library().open(entry.id).prompt.hard_prompt for entry in entries) == sorted(prompts)


def test_it_lowers_its_priority_unless_the_user_has_set_one(home: Path, prompt_file: Path, tmp_path: Path) -> None:
    own_niceness = os.getpriority(os.PRIO_PROCESS, 0)
    for i, (given, expected) in enumerate(((0, own_niceness or BATCH_NICENESS), (3, own_niceness + 3))):
        out = tmp_path / f"{i}.jsonl"
        args = batch_command(prompt_file, "-k", "2", "--steps", "4", "--no-contexts", "--together", "3", "--out", out)
        prompt_file.write_text("\n".join(f"a fox number {i} {k}" for k in range(300)))
        process = subprocess.Popen(["nice", "-n", f"{given}", *args], stderr=subprocess.DEVNULL)
        wait_until(lambda: process.poll() is not None or (out.exists() and out.stat().st_size), 60)  # noqa: B023
        assert nicenesses(process.pid) == {expected}  # all of torch's threads too
        process.kill()
        process.wait()


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_continue(home: Path, prompt_file: Path, nursery: Nursery) -> None:
    master, slave = pty.openpty()
    args = ("batch", f"{prompt_file}", "-k", "2", "--steps", "50000", "--no-contexts")
    process = nursery.start_command(*args, stderr=slave, TERM="xterm", COLUMNS="80")
    os.close(slave)
    output = ""
    while " left" not in output:
        output += os.read(master, 4096).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    try:
        while data := os.read(master, 4096):
            output += data.decode(errors="replace")
    except OSError:  # the command has closed its end
        pass
    assert process.wait() == 130
    assert "0 of 2 prompts" in output
    assert "interrupted; run the same command again to continue" in output
    assert len(list((home / "data" / "batches").glob("*.state"))) == 1
    os.close(master)
    reading, writing = os.pipe()
    again = nursery.start_command(*args, stderr=writing)
    os.close(writing)
    with os.fdopen(reading) as log:
        assert log.readline() == "2 prompts: 2 to train\n"
        assert log.readline() == "continued from a checkpoint: 2 prompts\n"
    again.send_signal(signal.SIGKILL)
    again.wait()


def test_a_log_file_gets_a_line_every_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(batch_command_module, "load", lambda *_: None)
    now = BatchProgress(60, "loading", "mini", done=10, before=10)
    with BatchDisplay(60, quiet=False) as display:
        display(now)
        display.load("mini", "cpu", "float32")
        now = replace(now, phase="training", resumed=3)
        for clock.now in (1.0, 30.0, 60.0):
            display(now)
        now = replace(now, done=12, failed=1, trained=1, in_progress=0.5, seconds=60.0)
        for clock.now in (61.0, 62.0, 120.0):
            display(now)
    assert capsys.readouterr() == (
        "",
        "60 prompts: 10 from before, 50 to train\n"
        "continued from a checkpoint: 3 prompts\n"
        "12 of 60 done, 1 failed, 21 %  40.0 s per prompt  31:40 left\n",
    )
    with BatchDisplay(60, quiet=True) as display:
        display(now)
        clock.now = 1000.0
        display(now)
    assert not capsys.readouterr().err


def test_a_training_without_a_terminal_prints_a_line_every_minute(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.0)
    done = run("train", FOX, "-k", "2", "--steps", "40", "--no-contexts", "--json")
    assert json.loads(done.stdout)["steps"] == 40
    assert re.search(r"^step \d+ of 40  loss \S+  similarity \S+  \S+ steps/s", done.stderr, re.MULTILINE)
    assert "step" not in run("train", FOX, "-k", "2", "--steps", "40", "--no-contexts", "--json", "--quiet").stderr


def test_on_a_terminal_the_results_are_a_table(home: Path, prompt_file: Path, nursery: Nursery) -> None:
    prompt_file.write_text(f"{FOX}\n\x1b[31mred {'fox ' * 300}\n")
    master, slave = pty.openpty()
    process = nursery.start_command("batch", f"{prompt_file}", *SHORT, "--quiet", stdout=slave)
    os.close(slave)
    output = b""
    try:
        while data := os.read(master, 4096):
            output += data
    except OSError:
        pass
    os.close(master)
    assert process.wait() == 1
    text = output.decode()
    header, *rows = (re.sub(r"\x1b\[[0-9]*m", "", line) for line in text.splitlines())
    (row,) = (row for row in rows if FOX in row)
    assert header.split() == ["similarity", "composed", "name", "prompt"]
    assert [row.index(cell) for cell in ("red-fox-asleep", FOX)] == [header.index("name"), header.index("prompt")]
    assert text.count("similarity") == 1
    assert f"red-fox-asleep            {FOX}" in text
    assert "line 2: the prompt has " in text
    assert "\x1b[31m" not in text
