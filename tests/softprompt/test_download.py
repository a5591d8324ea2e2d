"""Fetching weights, against a small stand-in for the Hugging Face hub on loopback: whole, cut short, broken, gone."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

WEIGHTS = bytes(range(256)) * 4096
PATH = "/timm/vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors"
MODEL = "ViT-B-32-quickgelu/openai"
COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves one file as the hub does; `faults` are taken one a request: cut, drop, 500, wrong, no-range."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.faults: list[str] = []
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

    def do_HEAD(self) -> None:
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
        fault = self.server.faults.pop(0) if self.server.faults else ""
        asked = self.headers.get("Range", "")
        self.server.ranges.append(asked)
        self.server.tokens.append(self.headers.get("Authorization"))
        begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked and fault != "no-range" else 0
        if fault == "500":
            self._head(500, 0)
            return
        body = WEIGHTS[begin:] if fault != "wrong" else bytes(len(WEIGHTS) - begin)
        self._head(206 if begin else 200, len(body), **self._about())
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
    ("endpoint", "offline", "said"), [("http://127.0.0.1:9", "0", "no answer from the hub"), ("", "1", "HF_HUB_OFFLINE is set")]
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
