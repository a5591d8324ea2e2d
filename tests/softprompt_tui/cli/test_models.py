"""`models pull --json` and `models delete`, with a hub on localhost."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softprompt_tui import ERRORS_AS_JSON
from tests.fake_hub import COMMIT, MODEL, WEIGHTS, Hub, serve_hub
from tests.pty_screen import Terminal

HALF = len(WEIGHTS) // 2


@pytest.fixture
def hub(home: Path, cached_model_list: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    home.mkdir()
    (home / "cache").symlink_to(cached_model_list)
    with serve_hub() as server:
        for name, value in server.environment(home / "hf").items():
            monkeypatch.setenv(name, value)
        yield server


def begin(*args: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "softprompt_tui", "models", *args],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | environment,
    )  # fmt: skip


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    with begin(*args, **environment) as process:
        output = process.communicate(timeout=60)
    return subprocess.CompletedProcess(args, process.returncode, *output)


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def partial_bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.rglob("*.softprompt-partial"))


def read_until(process: subprocess.Popen[str], key: str, value: object) -> None:
    """Read a command's lines until one has this value."""
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get(key) == value:
            return
    raise AssertionError(f"no line has {key} = {value!r}")


def test_pull_prints_its_progress_and_the_path_as_lines_of_json(hub: Hub, home: Path) -> None:
    result = run("pull", MODEL, "--json")
    assert result.returncode == 0, result.stderr
    *progress, last = lines(result.stdout)
    assert progress[-1] == {"bytes": len(WEIGHTS), "total": len(WEIGHTS)}
    assert last["model"] == MODEL
    assert Path(last["path"]).read_bytes() == WEIGHTS
    (described,) = json.loads(run("quickgelu/openai", "b32", "--json").stdout)
    assert (described["bytes"], described["partial_bytes"], described["on_disk"]) == (len(WEIGHTS), 0, True)


def test_the_list_says_what_is_on_disk_and_can_have_only_that(hub: Hub, home: Path) -> None:
    assert [line.split()[0] for line in run("--on-disk").stdout.splitlines()] == ["model", "mini"]
    run("pull", MODEL)
    heading, mini, *models = run("--on-disk").stdout.splitlines()
    assert heading.endswith("here")
    assert "built in, " in mini
    assert MODEL in [model.split()[0] for model in models]  # others are in the same files
    assert all(re.search(r"on disk, [\d.]+ [kM]?B", model) for model in models)
    described = json.loads(run("--on-disk", "--json").stdout)
    assert [model["name"] for model in described] == ["mini", *(model.split()[0] for model in models)]
    assert "no model on disk matches 'siglip'" in run("siglip", "--on-disk").stderr


def test_an_interrupted_pull_keeps_its_part_and_the_next_goes_on(hub: Hub, home: Path) -> None:
    hub.stop_at = HALF
    with begin("pull", MODEL, "--json") as process:
        read_until(process, "bytes", HALF)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert partial_bytes(home) == HALF
    described = json.loads(run("quickgelu/openai", "b32", "--json").stdout)[0]
    assert (described["bytes"], described["partial_bytes"]) == (None, HALF)
    hub.go_on()
    assert run("pull", MODEL, "--json").returncode == 0
    assert hub.ranges == ["", f"bytes={HALF}-"]
    assert partial_bytes(home) == 0


def test_a_pull_ends_when_nobody_reads_its_lines_any_more_even_if_the_hub_is_silent(hub: Hub, home: Path) -> None:
    hub.stop_at = HALF
    with begin("pull", MODEL, "--json") as process:
        read_until(process, "bytes", HALF)
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(5) == 130
    assert partial_bytes(home) == HALF


def test_a_second_pull_of_the_same_model_waits_for_the_first(hub: Hub, home: Path) -> None:
    hub.stop_at = HALF
    with begin("pull", MODEL, "--json") as first:
        read_until(first, "bytes", HALF)
        with begin("pull", MODEL, "--json") as second:
            read_until(second, "note", f"another program is pulling {MODEL}; waiting for it (Ctrl-C cancels)")
            read_until(second, "bytes", HALF)  # of the other program
            hub.go_on()
            assert (first.wait(30), second.wait(30)) == (0, 0)
            assert second.stdout is not None
            assert Path(lines(second.stdout.read())[-1]["path"]).read_bytes() == WEIGHTS
    assert hub.ranges == [""]


def test_a_failed_pull_is_one_line_of_json_on_stderr(hub: Hub, home: Path) -> None:
    hub.head_faults = ["429 1", "403 gated"]
    result = run("pull", MODEL, "--json", **{ERRORS_AS_JSON: "1"})
    assert result.returncode == 1
    (error,) = lines(result.stderr)
    assert error["kind"] == "ModelUnavailable"
    assert "Accept them at huggingface.co/timm/" in error["message"]
    assert [line["waiting"] for line in lines(result.stdout)] == [True, False]


def test_delete_names_what_it_deletes_and_asks(hub: Hub, home: Path) -> None:
    assert run("pull", MODEL).returncode == 0
    refused = run("delete", MODEL)
    assert refused.returncode == 2
    assert "needs confirmation" in refused.stderr
    for name in ("hf/hub/models--other--model/blobs/x", "hf/hub/models--timm--x/blobs/y"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_bytes(b"of another program")
    with Terminal(sys.executable, "-m", "softprompt_tui", "models", "delete", MODEL) as t:
        t.wait_for(
            rf"revision {COMMIT[:12]} main +1\.0 MB",
            "Other models with the same files: ViT-B-32/openai",
            "Other programs",
        )
        t.wait_for(r"Delete 1\.0 MB\? \[y/N\]")
        t.press("n", "enter")
        assert t.wait_for_exit() == 130
    assert list((home / "hf").rglob("open_clip_model.safetensors"))
    deleted = run("delete", MODEL, "--yes")
    assert deleted.returncode == 0
    assert f"{MODEL}: deleted, 1.0 MB freed" in deleted.stderr
    files = {path.name for path in (home / "hf" / "hub").rglob("*") if path.is_file() and ".locks" not in path.parts}
    assert files <= {"x", "y", "CACHEDIR.TAG"}
    assert "nothing to delete" in run("delete", MODEL).stderr


@pytest.mark.parametrize("name", ["mini", "local-dir:/tmp"])
def test_what_was_not_downloaded_cannot_be_deleted(hub: Hub, name: str) -> None:
    result = run("delete", name, "--yes")
    assert result.returncode == 2
    assert "Delete models that were downloaded." in result.stderr


def test_a_search_finds_the_text_encoders_of_a_program(hub: Hub) -> None:
    names = {model["name"] for model in json.loads(run("sdxl", "--json").stdout)}
    assert names == {"ViT-L-14/openai", "ViT-L-14-quickgelu/openai", "ViT-bigG-14/laion2b_s39b_b160k"}


def test_a_pull_that_is_stopped_by_a_full_disk_says_so(hub: Hub, home: Path) -> None:
    hub.stop_at = HALF
    with begin("pull", MODEL, "--json") as process:
        read_until(process, "bytes", HALF)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (HALF + 1000, HALF + 1000))  # as if the disk were full
        hub.go_on()
        assert process.wait(30) == 1
        assert process.stderr is not None
        assert "cannot write to" in process.stderr.read()
    assert partial_bytes(home) == HALF + 1000
