"""Fetching weights, against a small stand-in for the Hugging Face hub on loopback: whole, cut short, broken, gone."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from softprompt.encoders.catalog import ModelInfo
from softprompt.encoders.download import LONGEST_WAIT, fetch
from softprompt.errors import ModelUnavailable

WEIGHTS = bytes(range(256)) * 4096
PATH = "/timm/vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors"
MODEL = "ViT-B-32-quickgelu/openai"
COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves one file as the hub does; `faults` are taken one a request: cut, 500, wrong, no-range, gzip, a status and what it says.

    `first` are the faults of the requests before those, which ask what there is.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.faults: list[str] = []
        self.first: list[str] = []
        self.ranges: list[str] = []
        self.tokens: list[str | None] = []
        self.elsewhere = ""
        self.has_file = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length), "Connection": "close"} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.close_connection = True

    def _about(self) -> dict[str, str]:
        return {"X_Repo_Commit": COMMIT, "ETag": f'"{hashlib.sha256(WEIGHTS).hexdigest()}"', "Accept_Ranges": "bytes"}

    def _refuses(self, faults: list[str]) -> bool:
        """Answers with the status of the next fault, if it has one; what follows it is when to come again, or why."""
        status, _, said = (faults[0] if faults else "").partition(" ")
        if not status.isdecimal():
            return False
        faults.pop(0)
        code = {"401": "RepoNotFound", "403": "GatedRepo"}.get(status, "")
        told = {"Retry_After": said} if said and not code else {"X_Error_Code": code} if said else {}
        self._head(int(status), 0, **told)
        return True

    def do_HEAD(self) -> None:
        if self._refuses(self.server.first):
            return
        if self.path == PATH and self.server.has_file:
            away = {"Location": f"{self.server.elsewhere}{PATH}", "X_Linked_Size": str(len(WEIGHTS))}
            elsewhere = away if self.server.elsewhere else {}
            self._head(302 if elsewhere else 200, len(WEIGHTS), **self._about(), **elsewhere)
        else:
            self._head(404, 0, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)

    def do_GET(self) -> None:
        if self.path != PATH:
            self._head(404, 0, X_Error_Code="EntryNotFound")
            return
        asked = self.headers.get("Range", "")
        self.server.ranges.append(asked)
        if self._refuses(self.server.faults):
            return
        fault = self.server.faults.pop(0) if self.server.faults else ""
        self.server.tokens.append(self.headers.get("Authorization"))
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and fault != "no-range" else 0
        body = WEIGHTS[begin:] if fault != "wrong" else bytes(len(WEIGHTS) - begin)
        if fault == "gzip":
            body = gzip.compress(body)
        self._head(
            206 if begin else 200, len(body), **self._about(), **{"Content_Encoding": "gzip"} if fault == "gzip" else {}
        )
        self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving() as server:
        yield server


@contextmanager
def serving() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def pull(hub: Hub | str, home: Path, model: str = MODEL, **environment: str) -> subprocess.CompletedProcess[str]:
    """`models pull` in a process of its own: huggingface_hub reads its environment when it is imported."""
    address = hub if isinstance(hub, str) else hub.address
    settings = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "SOFTPROMPT_HOME": str(home),
    }
    return subprocess.run(
        [sys.executable, "-m", "softprompt_tui", "models", "pull", model],
        env=os.environ | settings | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def home(home: Path, kept_models: Path) -> Path:
    home.mkdir()
    (home / "cache").symlink_to(kept_models)
    return home


def weights_in(home: Path) -> bytes:
    return next((home / "hf").rglob("snapshots/*/open_clip_model.safetensors")).read_bytes()


def test_a_model_is_fetched_once(hub: Hub, home: Path) -> None:
    done = pull(hub, home)
    assert done.returncode == 0, done.stderr
    assert weights_in(home) == WEIGHTS
    assert str(next((home / "hf").rglob("snapshots/*/open_clip_model.safetensors"))) in done.stdout
    assert pull(hub, home).returncode == 0
    assert hub.ranges == [""]


def test_a_truncated_answer_is_resumed_where_it_broke_off(hub: Hub, home: Path) -> None:
    hub.faults = ["cut", "cut"]
    assert pull(hub, home).returncode == 0
    half = len(WEIGHTS) // 2
    assert hub.ranges == ["", f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert weights_in(home) == WEIGHTS


def test_what_came_is_kept_for_the_next_try(hub: Hub, home: Path) -> None:
    hub.faults = ["cut", *["500"] * 20]
    done = pull(hub, home)
    assert done.returncode == 1
    assert "is not on disk and cannot be fetched" in done.stderr
    assert "what came is kept" in done.stderr
    hub.faults, hub.ranges = [], []
    assert pull(hub, home).returncode == 0
    assert hub.ranges == [f"bytes={len(WEIGHTS) // 2}-"]
    assert weights_in(home) == WEIGHTS


def test_a_server_without_ranges_starts_anew(hub: Hub, home: Path) -> None:
    hub.faults = ["cut", "no-range"]
    assert pull(hub, home).returncode == 0
    assert weights_in(home) == WEIGHTS


def test_the_users_token_goes_to_the_hub_only(hub: Hub, home: Path) -> None:
    assert pull(hub, home, HF_TOKEN="hf_secret").returncode == 0
    assert hub.tokens == ["Bearer hf_secret"]
    for file in (home / "hf").rglob("*model.safetensors"):
        file.unlink()
    for file in (home / "hf").rglob("blobs/*"):
        file.unlink()
    with serving() as store:
        hub.elsewhere = store.address
        assert pull(hub, home, HF_TOKEN="hf_secret").returncode == 0
        assert store.tokens == [None]
    assert weights_in(home) == WEIGHTS


def test_two_programs_fetch_one_file_without_harm(hub: Hub, home: Path) -> None:
    hub.faults = ["cut"]
    with ThreadPoolExecutor() as pool:
        assert [done.returncode for done in pool.map(lambda _: pull(hub, home), range(3))] == [0, 0, 0]
    assert weights_in(home) == WEIGHTS
    assert len(hub.ranges) == 2


def test_wrong_bytes_are_thrown_away(hub: Hub, home: Path) -> None:
    hub.faults = ["wrong"]
    done = pull(hub, home)
    assert done.returncode == 1
    assert "does not match its checksum" in done.stderr
    assert [p for p in (home / "hf").rglob("*") if p.is_file() and p.stat().st_size > 1000] == []


def test_weights_that_the_hub_does_not_have_are_said(hub: Hub, home: Path) -> None:
    hub.has_file = False
    done = pull(hub, home)
    assert done.returncode == 1
    assert "has none of open_clip_model.safetensors, open_clip_pytorch_model.bin" in done.stderr


@pytest.mark.parametrize(
    ("endpoint", "offline", "said"),
    [("http://127.0.0.1:9", "0", "no answer from the hub"), ("", "1", "HF_HUB_OFFLINE is set")],
)
def test_without_a_network_it_says_what_to_do(home: Path, endpoint: str, offline: str, said: str) -> None:
    done = pull(endpoint or "http://127.0.0.1:9", home, HF_HUB_OFFLINE=offline)
    assert done.returncode == 1
    assert said in done.stderr
    assert "--model mini" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_model_that_cannot_be_used_is_not_fetched(hub: Hub, home: Path) -> None:
    done = pull(hub, home, "roberta-ViT-B-32/laion2b_s12b_b32k")
    assert done.returncode == 2
    assert "its text tower is the Hugging Face model roberta-base" in done.stderr
    assert hub.ranges == []


# a hub that is busy, or does not give everything to everybody

INFO = ModelInfo(
    "ViT-B-32/openai", 512, 12, 77, 1, "timm/vit_base_patch32_clip_224.openai", ("open_clip_model.safetensors",)
)


@pytest.fixture
def here(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub, for downloads in this process: what the hub's client has read from its environment is set by hand."""
    for name, value in {
        "ENDPOINT": hub.address,
        "HUGGINGFACE_CO_URL_TEMPLATE": hub.address + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(home / "hf"),
        "HF_HUB_OFFLINE": False,
    }.items():
        monkeypatch.setattr(constants, name, value)
    return hub


def in_seconds(seconds: float) -> str:
    return formatdate(time.time() + seconds, usegmt=True)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("asks_with", ["a number", "a date"])
def test_a_busy_hub_is_waited_for_as_it_asks_and_named(
    here: Hub, caplog: pytest.LogCaptureFixture, status: int, asks_with: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first request, which asks what there is, and in the middle of the file."""
    clock = [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock[-1] + seconds))
    monkeypatch.setattr(time, "monotonic", lambda: clock[-1])
    asked = f"{status} {20 if asks_with == 'a number' else in_seconds(20.5)}"
    here.first, here.faults = [asked], [asked, "cut", asked]
    assert fetch(INFO).read_bytes() == WEIGHTS
    assert 57 <= clock[-1] < 64
    host = here.address.removeprefix("http://")
    assert all(message.startswith(f"{host} is busy, and asks to wait ") for message in caplog.messages)
    assert len(caplog.messages) == 3


def test_a_hub_that_stays_busy_is_said_to_be_and_what_came_is_kept(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    here.faults = ["cut", *["429"] * 9]
    with monkeypatch.context() as patch:
        patch.setattr("softprompt.encoders.download.WAIT", 0.0)
        with pytest.raises(ModelUnavailable, match=r"the hub is busy \(429\).*what came is kept"):
            fetch(INFO)
    here.faults = []
    assert fetch(INFO).read_bytes() == WEIGHTS
    assert here.ranges[-1] == f"bytes={len(WEIGHTS) // 2}-"


@pytest.mark.parametrize("phase", ["first", "faults"])
def test_what_is_too_long_to_wait_is_said_at_once(here: Hub, phase: str) -> None:
    setattr(here, phase, [f"429 {LONGEST_WAIT + 1:.0f}"])
    with pytest.raises(ModelUnavailable, match=rf"is busy, and asks to wait {LONGEST_WAIT + 1:.0f} s"):
        fetch(INFO)


@pytest.mark.parametrize("phase", ["first", "faults"])
def test_waiting_for_a_busy_hub_can_be_ended(here: Hub, phase: str) -> None:
    def on_progress(*_: int) -> None:
        raise KeyboardInterrupt  # as Ctrl-C does, or the worker whose run is to stop

    setattr(here, phase, ["429 300"])
    with pytest.raises(KeyboardInterrupt):
        fetch(INFO, on_progress)


@pytest.mark.parametrize(
    ("phase", "answer", "said"),
    [
        ("first", "401", "401.*HF_TOKEN"),
        ("first", "401 not found", "HF_TOKEN"),
        ("first", "403", "403.*accept its terms at huggingface.co/timm/.*HF_TOKEN"),
        ("first", "403 gated", "accept terms.*huggingface.co/timm/.*HF_TOKEN"),
        ("faults", "401", "401.*HF_TOKEN"),
        ("faults", "403", "403.*accept its terms.*HF_TOKEN"),
    ],
)
def test_what_the_hub_gives_only_to_some_is_asked_for_once_and_the_token_named(
    here: Hub, phase: str, answer: str, said: str
) -> None:
    setattr(here, phase, [answer] * 9)
    with pytest.raises(ModelUnavailable, match=said):
        fetch(INFO)
    assert len(here.ranges) == (phase == "faults")


def test_a_file_that_cannot_fit_is_refused_before_its_first_byte(here: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    here.faults = ["cut", "500", "500", "500", "500", "500"]
    with monkeypatch.context() as patch:
        patch.setattr("softprompt.encoders.download.WAIT", 0.0)
        with pytest.raises(ModelUnavailable):
            fetch(INFO)
    here.faults, here.ranges = [], []
    usage, missing = shutil.disk_usage("/"), len(WEIGHTS) // 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=missing - 1))
    with pytest.raises(ModelUnavailable, match=r"takes 1 MB more, and 1 MB are free in .*HF_HOME"):
        fetch(INFO)
    assert here.ranges == []
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: usage._replace(free=missing)
    )  # what is there already needs no room
    assert fetch(INFO).read_bytes() == WEIGHTS


def test_a_compressed_answer_is_not_kept(here: Hub, home: Path) -> None:
    here.faults = ["gzip"]
    with pytest.raises(ModelUnavailable, match="it comes compressed \\('gzip'\\)"):
        fetch(INFO)
    assert [path for path in home.rglob("*partial") if path.is_file()] == []
    assert fetch(INFO).read_bytes() == WEIGHTS


def test_pull_tells_that_a_hub_is_busy(hub: Hub, home: Path) -> None:
    hub.first = ["429 1"]
    done = pull(hub, home)
    assert done.returncode == 0, done.stderr
    assert (
        done.stderr.rstrip()
        == f"warning: {hub.address.removeprefix('http://')} is busy, and asks to wait 1 s: waiting (Ctrl-C ends it)"
    )
