"""`softprompt-tui doctor`: a page for a bug report that never breaks and tells no secrets, and the test of a device."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from softprompt import Library
from softprompt.bench import device_check
from softprompt.bench.device_check import CheckResult, DeviceCheck
from softprompt.encoders.hub_cache import PARTIAL_SUFFIX
from softprompt_tui.cli.commands import doctor
from softprompt_tui.cli.diagnosis import environment, software
from softprompt_tui.cli.diagnosis.fact import Section
from tests.library_model import a_prompt
from tests.nursery import PIPE, Nursery
from tests.worker_process import Home

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def worker(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    worker_home = Home(monkeypatch.setenv)
    yield worker_home
    worker_home.close()


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the section that imports torch in a process of its own, which takes seconds."""
    use_sections(monkeypatch, *(section for section in doctor.SECTIONS if section.name != "torch"))


def use_sections(monkeypatch: pytest.MonkeyPatch, *sections: Section) -> None:
    monkeypatch.setattr(doctor, "SECTIONS", sections)


def facts(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    """Return the facts of `--json` by name. If a name has several, return the last."""
    assert result.returncode == 0, result.stderr
    return {fact["name"]: fact for fact in json.loads(result.stdout)["facts"]}


def test_the_report_is_one_page_about_everything(run: Run, worker: Home) -> None:
    result = run("doctor")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert len(lines) <= 45
    assert max(map(len, lines)) <= 80
    labels = {line[2:14].strip() for line in lines} - {""}
    assert labels >= {
        "program", "system", "packages", "torch", "cpu", "worker", "worker log", "library", "library disk",
        "model disk", "models", "hub", "terminal", "inside", "copying", "locale", "variables",
    }  # fmt: skip
    assert re.search(r"torch +\d+\.\d+\S*, a (CPU|CUDA|ROCm)", result.stdout)
    assert "HF_HUB_OFFLINE is set" in result.stdout
    assert worker.pid() is None  # none was started


def test_json_has_the_same_facts(run: Run, without_torch: None) -> None:
    Library().save(a_prompt(name="fox"))
    found = facts(run("doctor", "--json"))
    assert found["library"]["values"]["entries"] == 1
    assert found["worker"]["values"] == {"is_running": False}
    assert found["program"]["values"]["python"] == sys.version.split()[0]
    assert found["library disk"]["values"]["free_bytes"] > 0


def test_a_running_worker_is_described(run: Run, worker: Home, without_torch: None) -> None:
    with worker.client():
        found = facts(run("doctor", "--json"))["worker"]
    assert found["state"] == "ok"
    assert found["values"]["pid"] == worker.pid()
    assert "1 client, idle, 0 waiting" in found["text"]


def test_what_is_wrong_is_marked_and_says_what_to_do(
    run: Run, without_torch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Library().save(a_prompt(name="fox"))
    path = Library().path(entry.id, 1)
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:100])
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o777)
    result = run("doctor", SOFTPROMPT_RUNTIME=str(public), SOFTPROMPT_HOEM="/x", LC_ALL="xx_XX.UTF-8", TERM="dumb")
    wrong = {line[2:14].strip() for line in result.stdout.splitlines() if line.startswith("! ")}
    assert wrong == {"worker", "library", "variables", "locale", "terminal"}
    for advice in (
        "library check", "Did you mean SOFTPROMPT_HOME?", "export SOFTPROMPT_RUNTIME=", "xterm-256color", "`locale -a`",
    ):  # fmt: skip
        assert advice in " ".join(result.stdout.split())
    assert "Problems found: 5, marked with !" in result.stdout
    assert result.returncode == 0


def test_a_file_in_place_of_a_folder_is_wrong(
    run: Run, without_torch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(file / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(file / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    result = run("doctor", "--json", SOFTPROMPT_HOME=str(file))
    wrong = {fact["name"]: fact for fact in json.loads(result.stdout)["facts"] if fact["state"] == "wrong"}
    assert set(wrong) == {"library disk", "model disk", "hub"}
    assert all("is a file, but it must be a folder" in wrong[name]["text"] for name in ("library disk", "model disk"))
    assert wrong["library disk"]["advice"] == "Rename or delete it, or set SOFTPROMPT_HOME to a folder."
    assert wrong["model disk"]["advice"] == "Rename or delete it, or set HF_HOME to a folder."
    assert "the token's file cannot be read" in wrong["hub"]["text"]


def test_files_that_two_names_share_are_counted_once(
    run: Run, without_torch: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for repository, name in (
        ("vit_base_patch32_clip_224.openai", "snapshots/1/open_clip_model.safetensors"),
        ("vit_base_patch32_clip_224.openai", "refs/main"),
        ("vit_large_patch14_clip_224.openai", f"blobs/x{PARTIAL_SUFFIX}"),
    ):
        path = tmp_path / "hub" / f"models--timm--{repository}" / name
        path.parent.mkdir(parents=True)
        path.write_text("1")
    models = facts(run("doctor", "--json"))["models"]
    assert models["values"]["models"] == ["mini", "ViT-B-32-quickgelu/openai"]
    assert "1 unfinished download" in models["text"]


SECRET = "hunter2hunter2"


def test_no_secret_and_no_home_folder_is_printed(run: Run, without_torch: None, tmp_path: Path) -> None:
    variables = {
        "HF_TOKEN": SECRET,
        "HUGGINGFACE_API_KEY": SECRET,
        "HTTPS_PROXY": f"http://me:{SECRET}@proxy:3128",
        "HF_ENDPOINT": f"https://mirror/x?key={SECRET}",
        "CUDA_MODULE_LOADING": f"{Path.home()}/x",
    }
    for arguments in (("doctor",), ("doctor", "--json")):
        output = run(*arguments, **variables).stdout
        assert SECRET not in output
        assert str(Path.home() / "x") not in output
        assert "~/x" in output
        assert "proxy:3128" in output
        assert f"-{socket.gethostname()}.log" not in output


def test_hostile_values_cannot_break_the_page(run: Run, without_torch: None, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "\x1b[2J\x1b]52;c;aGk=\x07\n[/]\u202e" + "x" * 5000
    names = ("TERM_PROGRAM", "LANG", "HF_HOME", "SOFTPROMPT_X", *(f"CUDA_{i}" for i in range(300)))
    for name in names:
        monkeypatch.setenv(name, hostile if name != "HF_HOME" else os.fsdecode(b"/nowhere/\xff\x1b[2J"))
    result = run("doctor")
    assert result.returncode == 0, result.stderr
    assert result.stdout.replace("\n", "").isprintable()
    assert len(result.stdout.splitlines()) <= 45
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_section_that_breaks_or_hangs_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Any]:
        yield from software.find_program()
        raise ZeroDivisionError("\x1b[31mbang")

    hanging = threading.Event()
    use_sections(
        monkeypatch,
        Section("broken", broken),
        Section("hanging", lambda: hanging.wait() and [], seconds=0.05),
        Section("locale", environment.find_locale),
    )
    result = run("doctor")
    hanging.set()
    assert result.returncode == 0
    assert "  program      softprompt-tui" in result.stdout
    assert "? broken       cannot be found out: ZeroDivisionError: ␛[31mbang" in result.stdout
    assert "! hanging      no answer within 0 s" in result.stdout
    assert "  locale" in result.stdout


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "raise ImportError('libcudart.so.13: cannot open shared object file')",
            "cannot be imported: ImportError: lib",
        ),
        ("import os; os.abort()", "ends its process: exit code -6"),
    ],
)
def test_a_broken_torch_is_described(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, text: str
) -> None:
    (tmp_path / "torch.py").write_text(code)
    use_sections(monkeypatch, Section("torch", software.find_torch, 60))
    found = facts(run("doctor", "--json", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}{os.pathsep}{ROOT / 'core'}"))
    assert found["torch"]["state"] == "wrong"
    assert text in found["torch"]["text"]
    assert "Install torch and torchvision" in found["torch"]["advice"]


@pytest.mark.parametrize(
    ("torch", "variables", "advice"),
    [
        ({"cuda": None}, {}, "Install torch and torchvision"),
        ({"cuda": "13.0", "cuda_error": "RuntimeError: too old"}, {}, "Install or update NVIDIA's driver"),
        ({"cuda": "13.0"}, {"CUDA_VISIBLE_DEVICES": ""}, "Unset CUDA_VISIBLE_DEVICES"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_wrong(
    run: Run, monkeypatch: pytest.MonkeyPatch, torch: dict[str, Any], variables: dict[str, str], advice: str
) -> None:
    defaults = {
        "torch_error": "", "version": "2.10.0", "rocm": None, "threads": 2, "instructions": "AVX2", "cuda_error": "",
        "open_clip_error": "",
    }  # fmt: skip
    cpu = {"name": "cpu", "label": "a processor, 2 cores", "total_bytes": 8e9, "free_bytes": 4e9}
    answer = json.dumps(defaults | torch | {"devices": [cpu]})
    code = f"import sys; print({answer!r}); sys.exit()"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(software, "REPORT_COMMAND", (sys.executable, "-c", code))
    monkeypatch.setattr(software, "has_nvidia_gpu", lambda: True)
    use_sections(monkeypatch, Section("torch", software.find_torch))
    found = facts(run("doctor", "--json", **variables))
    assert found["torch"]["state"] == "wrong"
    assert advice in found["torch"]["advice"]
    assert found["cpu"]["text"] == "a processor, 2 cores, 8.0 GB, 4.0 GB free"


@contextmanager
def hub_with_status(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "token", "state", "text"),
    [
        (200, "hf_x", "ok", "answers; token from HF_TOKEN accepted"),
        (401, "", "ok", "answers; no token"),
        (404, "", "ok", "answers; no token"),
        (401, "hf_x", "wrong", "rejects the token from HF_TOKEN (status 401)"),
        (503, "", "wrong", "answers with status 503"),
        (0, "", "wrong", "cannot be reached (ConnectError"),
    ],
)
def test_the_hub_is_asked_once(
    run: Run, without_torch: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    status: int, token: str, state: str, text: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with hub_with_status(status or 500) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address if status else "http://127.0.0.1:9")
        variables = {"HF_TOKEN": token} if token else {}
        found = facts(run("doctor", "--json", **variables))["hub"]
    assert (found["state"], text in found["text"]) == (state, True), found
    assert bool(found["advice"]) == (state == "wrong")


def test_the_known_variables_are_those_that_the_program_reads() -> None:
    sources = [path for folder in ("core/softprompt", "softprompt_tui") for path in (ROOT / folder).rglob("*.py")]
    names = {
        name
        for path in sources
        if path != Path(environment.__file__)
        for name in re.findall(r'"(SOFTPROMPT_[A-Z_]+)"', path.read_text(encoding="utf-8"))
    }
    assert names == set(environment.OWN_VARIABLES)


@pytest.fixture
def short_check(monkeypatch: pytest.MonkeyPatch, encoder: object) -> None:
    monkeypatch.setattr(device_check, "CONFIG", replace(device_check.CONFIG, steps=10, contexts=()))
    monkeypatch.setattr(device_check, "SHORT_CONFIG", replace(device_check.SHORT_CONFIG, steps=5))
    monkeypatch.setattr(device_check, "SPEED_SECONDS", 0.01)
    monkeypatch.setattr(device_check, "CPU_TOGETHER", 2)
    monkeypatch.setattr(device_check, "random_encoder", lambda *_: encoder)


def test_a_device_is_tested_with_one_line_for_each_check(run: Run, short_check: None) -> None:
    result = run("doctor", "--device", "cpu")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"device +cpu, .*; torch \S+", lines[0])
    assert [line.split()[0] for line in lines[1:]] == [
        "float32", "bfloat16", "two", "speed", "ViT-L-14", "recorded", "memory",
    ]  # fmt: skip
    assert sum(" passed " in line for line in lines) == 5
    assert max(map(len, lines[1:])) <= 80
    assert sum(" skipped         only a CUDA device" in line for line in lines) == 2


def test_a_check_that_fails_gives_exit_code_1(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = CheckResult("float32", "failed", "a driver says \x1b[2J", 0.5)
    monkeypatch.setattr(DeviceCheck, "run", lambda *_, **__: iter([failed]))
    result = run("doctor", "--device", "cpu")
    assert (result.returncode, result.stderr) == (1, "")
    assert "failed   0.5 s  a driver says ␛[2J\n" in result.stdout
    document = json.loads((result := run("doctor", "--device", "cpu", "--json")).stdout)
    assert (result.returncode, document["passed"], document["complete"]) == (1, False, True)
    assert document["checks"][0]["state"] == "failed"


@pytest.mark.parametrize(("device", "message"), [("cuda:7", "this machine has no device"), ("gpu", "it must be auto")])
def test_a_device_that_does_not_exist_is_one_line(run: Run, device: str, message: str) -> None:
    result = run("doctor", "--device", device)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


def test_ctrl_c_ends_the_test_of_a_device_and_keeps_what_is_known(home: Path, nursery: Nursery) -> None:
    process = nursery.start_command("doctor", "--device", "cpu", stdout=PIPE, stderr=PIPE)
    assert process.stdout is not None
    output = b""
    while b"float32" not in output:
        output += os.read(process.stdout.fileno(), 1000)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.read_output()
    assert process.wait(60) == 130, stderr
    assert (output.decode() + stdout).endswith("\n")
    assert stderr.endswith("softprompt-tui: interrupted\n")
