"""Downloading weights from a fake Hugging Face hub on localhost that truncates, corrupts, delays or denies the file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path

import pytest
from huggingface_hub import constants

import softprompt
from softprompt.encoders import loading
from softprompt.encoders.catalog import ModelInfo
from softprompt.encoders.download import MAX_FAILED_TRIES, MAX_WAIT_SECONDS, fetch
from softprompt.errors import ModelUnavailable
from tests.fake_hub import MODEL, WEIGHTS, Hub, serve_hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as server:
        yield server


def pull(hub: Hub | str, home: Path, model: str = MODEL, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `models pull` in its own process: huggingface_hub reads its environment when it is imported."""
    if isinstance(hub, Hub):
        settings = hub.environment(home / "hf")
    else:
        settings = {"HF_ENDPOINT": hub, "HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "0"}
    settings |= {"SOFTPROMPT_HOME": str(home)}
    return subprocess.run(
        [sys.executable, "-m", "softprompt_tui", "models", "pull", model],
        env=os.environ | settings | environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture
def home(home: Path, cached_model_list: Path) -> Path:
    home.mkdir()
    (home / "cache").symlink_to(cached_model_list)
    return home


def weights_in(home: Path) -> bytes:
    return next((home / "hf").rglob("snapshots/*/open_clip_model.safetensors")).read_bytes()


def test_a_model_is_downloaded_once(hub: Hub, home: Path) -> None:
    result = pull(hub, home)
    assert result.returncode == 0, result.stderr
    assert weights_in(home) == WEIGHTS
    assert str(next((home / "hf").rglob("snapshots/*/open_clip_model.safetensors"))) in result.stdout
    assert pull(hub, home).returncode == 0
    assert hub.ranges == [""]


def test_a_truncated_download_resumes_where_it_stopped(hub: Hub, home: Path) -> None:
    hub.faults = ["cut", "cut"]
    assert pull(hub, home).returncode == 0
    half = len(WEIGHTS) // 2
    assert hub.ranges == ["", f"bytes={half}-", f"bytes={half + half // 2}-"]
    assert weights_in(home) == WEIGHTS


def test_a_failed_download_is_resumed_by_the_next_one(hub: Hub, home: Path) -> None:
    hub.faults = ["cut", *["500"] * 20]
    result = pull(hub, home)
    assert result.returncode == 1
    assert "is not on disk and cannot be downloaded" in result.stderr
    assert "the download resumes where it stopped" in result.stderr
    hub.faults, hub.ranges = [], []
    assert pull(hub, home).returncode == 0
    assert hub.ranges == [f"bytes={len(WEIGHTS) // 2}-"]
    assert weights_in(home) == WEIGHTS


def test_a_server_without_ranges_restarts_the_download(hub: Hub, home: Path) -> None:
    hub.faults = ["cut", "no-range"]
    assert pull(hub, home).returncode == 0
    assert weights_in(home) == WEIGHTS


def test_the_users_token_is_only_sent_to_the_hub(hub: Hub, home: Path) -> None:
    assert pull(hub, home, HF_TOKEN="hf_secret").returncode == 0
    assert hub.tokens == ["Bearer hf_secret"]
    for file in (home / "hf").rglob("*model.safetensors"):
        file.unlink()
    for file in (home / "hf").rglob("blobs/*"):
        file.unlink()
    with serve_hub() as store:
        hub.redirect = store.address
        assert pull(hub, home, HF_TOKEN="hf_secret").returncode == 0
        assert store.tokens == [None]
    assert weights_in(home) == WEIGHTS


def test_parallel_downloads_of_one_file_do_not_interfere(hub: Hub, home: Path) -> None:
    hub.faults = ["cut"]
    with ThreadPoolExecutor() as pool:
        assert [result.returncode for result in pool.map(lambda _: pull(hub, home), range(3))] == [0, 0, 0]
    assert weights_in(home) == WEIGHTS
    assert len(hub.ranges) == 2


def test_a_download_with_a_wrong_checksum_is_deleted(hub: Hub, home: Path) -> None:
    hub.faults = ["wrong"]
    result = pull(hub, home)
    assert result.returncode == 1
    assert "does not match its checksum" in result.stderr
    assert [p for p in (home / "hf").rglob("*") if p.is_file() and p.stat().st_size > 1000] == []


def test_weights_missing_on_the_hub_are_reported(hub: Hub, home: Path) -> None:
    hub.has_file = False
    result = pull(hub, home)
    assert result.returncode == 1
    assert "contains none of open_clip_model.safetensors, open_clip_pytorch_model.bin" in result.stderr


@pytest.mark.parametrize(
    ("endpoint", "offline", "message"),
    [("http://127.0.0.1:9", "0", "no answer from the hub"), ("", "1", "HF_HUB_OFFLINE is set")],
)
def test_without_a_network_the_error_says_what_to_do(home: Path, endpoint: str, offline: str, message: str) -> None:
    result = pull(endpoint or "http://127.0.0.1:9", home, HF_HUB_OFFLINE=offline)
    assert result.returncode == 1
    assert message in result.stderr
    assert "--model mini" in result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_an_unsupported_model_is_not_downloaded(hub: Hub, home: Path) -> None:
    result = pull(hub, home, "roberta-ViT-B-32/laion2b_s12b_b32k")
    assert result.returncode == 2
    assert "its text tower is the Hugging Face model roberta-base" in result.stderr
    assert hub.ranges == []


# a hub that is busy or denies access

INFO = ModelInfo(
    "ViT-B-32/openai", 512, 12, 77, 1, "timm/vit_base_patch32_clip_224.openai", ("open_clip_model.safetensors",)
)


@pytest.fixture
def local_hub(hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub for downloads in this process: sets what huggingface_hub otherwise reads from the environment."""
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
@pytest.mark.parametrize("retry_after", ["seconds", "date"])
def test_a_busy_hub_gets_the_wait_that_it_asks_for_and_is_named(
    local_hub: Hub, caplog: pytest.LogCaptureFixture, status: int, retry_after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both the HEAD request and a request in the middle of the file."""
    clock = [0.0]
    monkeypatch.setattr(time, "sleep", lambda seconds: clock.append(clock[-1] + seconds))
    monkeypatch.setattr(time, "monotonic", lambda: clock[-1])
    fault = f"{status} {20 if retry_after == 'seconds' else in_seconds(20.5)}"
    local_hub.head_faults, local_hub.faults = [fault], [fault, "cut", fault]
    assert fetch(INFO).read_bytes() == WEIGHTS
    assert 57 <= clock[-1] < 64
    host = local_hub.address.removeprefix("http://")
    assert all(message.startswith(f"{host} is busy and asked us to retry in ") for message in caplog.messages)
    assert len(caplog.messages) == 3


def test_a_hub_that_stays_busy_is_reported_and_the_download_resumes_later(
    local_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    local_hub.faults = ["cut", *["429"] * 9]
    with monkeypatch.context() as patch:
        patch.setattr("softprompt.encoders.download.FIRST_WAIT_SECONDS", 0.0)
        with pytest.raises(ModelUnavailable, match=r"the hub is busy \(429\).*the download resumes"):
            fetch(INFO)
    local_hub.faults = []
    assert fetch(INFO).read_bytes() == WEIGHTS
    assert local_hub.ranges[-1] == f"bytes={len(WEIGHTS) // 2}-"


@pytest.mark.parametrize("phase", ["head_faults", "faults"])
def test_too_long_a_wait_is_reported_immediately(local_hub: Hub, phase: str) -> None:
    setattr(local_hub, phase, [f"429 {MAX_WAIT_SECONDS + 1:.0f}"])
    with pytest.raises(ModelUnavailable, match=rf"is busy and asked us to retry in {MAX_WAIT_SECONDS + 1:.0f} s"):
        fetch(INFO)


@pytest.mark.parametrize("phase", ["head_faults", "faults"])
def test_waiting_for_a_busy_hub_can_be_cancelled(local_hub: Hub, phase: str) -> None:
    def on_progress(*_: int) -> None:
        raise KeyboardInterrupt  # as on Ctrl-C, or when the worker stops the run

    setattr(local_hub, phase, ["429 300"])
    with pytest.raises(KeyboardInterrupt):
        fetch(INFO, on_progress)


@pytest.mark.parametrize(("faults", "stop_at"), [(["silent"], 0), ([], 0), ([], len(WEIGHTS) // 2)])
def test_a_silent_hub_can_be_cancelled_at_any_time(local_hub: Hub, faults: list[str], stop_at: int) -> None:
    """While it answers the first request, before the first byte, and in the middle of the file."""
    local_hub.head_faults, local_hub.stop_at = faults, stop_at
    calls: list[tuple[int, int]] = []

    def on_progress(received: int, total: int) -> None:
        calls.append((received, total))
        if calls[-4:] == [(received, total)] * 4 and received == stop_at:  # nothing arrives any more
            raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(INFO, on_progress)
    assert time.monotonic() - began < 5
    local_hub.go_on()
    assert fetch(INFO).read_bytes() == WEIGHTS
    assert local_hub.ranges[-1] == (f"bytes={stop_at}-" if stop_at else "")


def test_a_hub_that_stays_silent_has_failed_the_try_and_the_next_resumes(
    local_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softprompt.encoders.download.SILENCE_SECONDS", 0.5)
    monkeypatch.setattr("softprompt.encoders.download.FIRST_WAIT_SECONDS", 0.0)
    half = local_hub.stop_at = len(WEIGHTS) // 2
    with pytest.raises(ModelUnavailable, match="the hub sent nothing for"):
        fetch(INFO)
    assert local_hub.ranges == ["", *[f"bytes={half}-"] * MAX_FAILED_TRIES]

    def on_progress(*_: int) -> None:
        if len(local_hub.ranges) == MAX_FAILED_TRIES + 3:  # the second try of this download
            local_hub.go_on()

    assert fetch(INFO, on_progress).read_bytes() == WEIGHTS


def test_a_callers_function_is_called_only_while_the_total_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_name: str, _device: str, _precision: str, on_progress: Callable[[int, int], None]) -> None:
        on_progress(0, 0)
        on_progress(5, 10)

    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(loading, "load_encoder", load)
    softprompt.load_encoder("mini", on_progress=lambda received, total: calls.append((received, total)))
    assert calls == [(5, 10)]


@pytest.mark.parametrize(
    ("phase", "fault", "message"),
    [
        ("head_faults", "401", "401.*HF_TOKEN"),
        ("head_faults", "401 not found", "HF_TOKEN"),
        ("head_faults", "403", "403.*Accept its terms at huggingface.co/timm/.*HF_TOKEN"),
        ("head_faults", "403 gated", "accepting its terms of use.*huggingface.co/timm/.*HF_TOKEN"),
        ("faults", "401", "401.*HF_TOKEN"),
        ("faults", "403", "403.*Accept its terms.*HF_TOKEN"),
    ],
)
def test_denied_access_is_not_retried_and_the_error_names_the_token(
    local_hub: Hub, phase: str, fault: str, message: str
) -> None:
    setattr(local_hub, phase, [fault] * 9)
    with pytest.raises(ModelUnavailable, match=message):
        fetch(INFO)
    assert len(local_hub.ranges) == (phase == "faults")


def test_a_file_too_large_for_the_disk_is_rejected_before_its_first_byte(
    local_hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_hub.faults = ["cut", "500", "500", "500", "500", "500"]
    with monkeypatch.context() as patch:
        patch.setattr("softprompt.encoders.download.FIRST_WAIT_SECONDS", 0.0)
        with pytest.raises(ModelUnavailable):
            fetch(INFO)
    local_hub.faults, local_hub.ranges = [], []
    usage, missing = shutil.disk_usage("/"), len(WEIGHTS) // 2
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=missing - 1))
    with pytest.raises(ModelUnavailable, match=r"needs 1 MB, but .* has only 1 MB free.*HF_HOME"):
        fetch(INFO)
    assert local_hub.ranges == []
    # the part that is on disk needs no more room
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=missing))
    assert fetch(INFO).read_bytes() == WEIGHTS


def test_a_compressed_answer_is_discarded(local_hub: Hub, home: Path) -> None:
    local_hub.faults = ["gzip"]
    with pytest.raises(ModelUnavailable, match="the file arrived compressed \\('gzip'\\)"):
        fetch(INFO)
    assert [path for path in home.rglob("*partial") if path.is_file()] == []
    assert fetch(INFO).read_bytes() == WEIGHTS


def test_pull_reports_a_busy_hub(hub: Hub, home: Path) -> None:
    hub.head_faults = ["429 1"]
    result = pull(hub, home)
    assert result.returncode == 0, result.stderr
    host = hub.address.removeprefix("http://")
    assert result.stderr.rstrip() == f"warning: {host} is busy and asked us to retry in 1 s; waiting (Ctrl-C cancels)"
