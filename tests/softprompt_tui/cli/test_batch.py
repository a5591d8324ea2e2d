"""`softprompt-tui batch`: what it prints, how it ends, and that a kill costs nothing."""

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
from pathlib import Path

import pytest

from softprompt import Library
from softprompt.encoders.catalog import MINI_FOLDER
from softprompt.system.priority import BATCH_NICENESS
from tests.conftest import BOAT, FOX
from tests.nursery import Nursery
from tests.worker_process import nicenesses, wait_until

Run = Callable[..., subprocess.CompletedProcess[str]]
SHORT = ("-k", "2", "--steps", "4", "--no-contexts")
FIELDS = (
    "line state prompt id name model tokens similarity composed worst floor steps seconds readout_text readout_similarity error"
).split()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.txt"
    path.write_text(f"# two\n{FOX}\n\n{BOAT}\n")
    return path


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "softprompt_tui", "batch", *map(str, args)]


def test_each_prompt_is_a_line_of_json(run: Run, file: Path) -> None:
    done = run("batch", str(file), *SHORT, "--tag", "lot")
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(result) for result in results] == [FIELDS, FIELDS]
    assert {(result["line"], result["prompt"], result["state"]) for result in results} == {
        (2, FOX, "trained"),
        (4, BOAT, "trained"),
    }
    assert done.returncode == 0
    assert "2 of 2 prompts: 2 trained at" in done.stderr
    assert {one.name for one in Library().list(tags=["lot"]).entries} == {result["name"] for result in results}
    again = run("batch", str(file), *SHORT, "--quiet")
    assert [json.loads(line)["state"] for line in again.stdout.splitlines()] == ["before", "before"]
    assert "2 of 2 prompts: 0 trained, 2 from before" in again.stderr


def test_one_that_fails_ends_with_1_and_the_others_are_there(run: Run, file: Path) -> None:
    file.write_bytes(f"{FOX}\n{'fox ' * 300}\n\x1b]0;title\x07\xff\n".encode("latin-1"))
    done = run("batch", str(file), *SHORT)
    results = {result["line"]: result for result in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 1
    assert results[1]["error"] is None
    assert results[2]["error"]["kind"] == "PromptTooLong"
    assert "not valid UTF-8" in results[3]["error"]["message"]
    assert "3 prompts: 1 trained" in done.stderr
    assert "2 failed" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr


def test_standard_input_and_the_settings_of_rows(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = f"caption;tokens;url\n{FOX};1;x\n{BOAT};;y\n"

    class Stdin:
        buffer = io.BytesIO(text.encode())

    monkeypatch.setattr(sys, "stdin", Stdin())
    out = tmp_path / "results.jsonl"
    done = run(
        "batch", "-", "--format", "csv", "--column", "caption", "--steps", "4", "--no-contexts", "--out", str(out)
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert "not used: url" in done.stderr
    results = {result["line"]: result for result in map(json.loads, out.read_text().splitlines())}
    assert (results[2]["tokens"], results[3]["tokens"]) == (1, 10)
    assert Library().open(results[2]["id"]).prompt.config["contexts"] == []


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nothing.txt"], "cannot read nothing.txt: No such file"),
        (["."], "cannot read .: Is a directory"),
        (["FILE", "--tokens", "0"], "tokens is 0"),
        (["FILE", "--init", "soft"], "In a batch, use"),
        (["FILE", "--together", "0"], "not in the range"),
        (["FILE", "--tag", ""], "tag"),
        (["FILE", "--model", "minni"], "Close: mini"),
        (["FILE", "--out", "FILE"], "the file with the prompts"),
        (["FILE", "--format", "csv"], "no column 'prompt'"),
        (["FILE", "--format", "xml"], "is not one of"),
        ([str(MINI_FOLDER / "model.safetensors")], "model.safetensors is not text: byte 3 is a NUL"),
        ([], "Missing argument 'FILE'"),
    ],
)
def test_bad_input_ends_with_2_and_one_clear_line(run: Run, file: Path, home: Path, args: list[str], said: str) -> None:
    done = run("batch", *(str(file) if arg == "FILE" else arg for arg in args))
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert Library().list().entries == []


def test_killed_at_any_moment_each_is_there_once(home: Path, tmp_path: Path, nursery: Nursery) -> None:
    """Killed when the first results are there, again and again, until it comes to its end."""
    file, out = tmp_path / "prompts.txt", tmp_path / "out.jsonl"
    prompts = [
        f"a {colour} {animal} on a hill"
        for colour in ("red", "blue", "old")
        for animal in ("fox", "cat", "owl", "horse")
    ]
    file.write_text("\n".join(prompts))
    args = ("batch", f"{file}", "-k", "1", "--steps", "20", "--no-contexts", "--together", "3", "--out", f"{out}")
    killed = 0
    for enough in (1, 5, 9):
        process = nursery.start_command(*args)
        wait_until(
            lambda: process.poll() is not None or (out.exists() and len(out.read_bytes().splitlines()) >= enough), 60
        )  # noqa: B023
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed
    done = nursery.run(*args)
    assert done.returncode == 0
    assert f"{len(prompts)} of {len(prompts)} prompts" in done.stderr
    results = [json.loads(line) for line in out.read_text().splitlines()]
    assert sorted(result["prompt"] for result in results) == sorted(prompts)
    saved = Library().list().entries
    assert sorted(one.id for one in saved) == sorted(result["id"] for result in results)
    assert sorted(Library().open(one.id).prompt.hard_prompt for one in saved) == sorted(prompts)


def test_it_makes_way_unless_its_user_has_said_how_much(home: Path, file: Path, tmp_path: Path) -> None:
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    for i, (started, found) in enumerate(((0, usual or BATCH_NICENESS), (3, usual + 3))):
        out = tmp_path / f"{i}.jsonl"
        args = command(file, "-k", "2", "--steps", "4", "--no-contexts", "--together", "3", "--out", out)
        file.write_text("\n".join(f"a fox number {i} {k}" for k in range(300)))
        process = subprocess.Popen(["nice", "-n", f"{started}", *args], stderr=subprocess.DEVNULL)
        wait_until(lambda: process.poll() is not None or (out.exists() and out.stat().st_size), 60)  # noqa: B023
        assert nicenesses(process.pid) == {found}  # of torch's threads too
        process.kill()
        process.wait()


def test_ctrl_c_writes_down_what_is_under_way_and_says_how_to_go_on(home: Path, file: Path, nursery: Nursery) -> None:
    master, slave = pty.openpty()
    args = ("batch", f"{file}", "-k", "2", "--steps", "50000", "--no-contexts")
    process = nursery.start_command(*args, stderr=slave, TERM="xterm", COLUMNS="80")
    os.close(slave)
    seen = ""
    while " left" not in seen:
        seen += os.read(master, 4096).decode(errors="replace")
    process.send_signal(signal.SIGINT)
    try:
        while data := os.read(master, 4096):
            seen += data.decode(errors="replace")
    except OSError:  # the terminal's other end is closed
        pass
    assert process.wait() == 130
    assert "0 of 2 prompts" in seen
    assert "interrupted; run the same command again to continue" in seen
    assert len(list((home / "data" / "batches").glob("*.state"))) == 1
    os.close(master)


def test_on_a_terminal_results_are_rows_under_heads(home: Path, file: Path, nursery: Nursery) -> None:
    file.write_text(f"{FOX}\n\x1b[31mred {'fox ' * 300}\n")
    master, slave = pty.openpty()
    process = nursery.start_command("batch", f"{file}", *SHORT, "--quiet", stdout=slave)
    os.close(slave)
    seen = b""
    try:
        while data := os.read(master, 4096):
            seen += data
    except OSError:
        pass
    os.close(master)
    assert process.wait() == 1
    words = seen.decode()
    head, *rows = (re.sub(r"\x1b\[[0-9]*m", "", line) for line in words.splitlines())
    (row,) = (row for row in rows if FOX in row)
    assert head.split() == ["similarity", "composed", "name", "prompt"]
    assert [row.index(text) for text in ("red-fox-asleep", FOX)] == [head.index("name"), head.index("prompt")]
    assert words.count("similarity") == 1
    assert f"red-fox-asleep            {FOX}" in words
    assert "line 2: the prompt has " in words
    assert "\x1b[31m" not in words
