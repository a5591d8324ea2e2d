"""A worker keeps the Hugging Face variables it was started with. Clients notice if theirs differ."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from softprompt.jobs.job import TrainJob
from softprompt.worker import protocol as p
from softprompt.worker.hub_variables import ADVICE, has_other_variables
from softprompt.worker.log import log_path
from tests.conftest import FOX
from tests.worker_process import Home

TOKEN = "hf_secret"


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Home]:
    """A worker that was started with a token and with a relative HF_HOME."""
    process = Home(monkeypatch.setenv)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", "hf")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield process
    process.close()


@pytest.mark.parametrize(
    ("variable", "value", "differs"),
    [
        ("HF_TOKEN", TOKEN, False),
        ("HF_TOKEN", "hf_other", True),
        ("HF_TOKEN", "", True),
        ("HF_HOME", "{cwd}/hf", False),
        ("HF_HOME", "/elsewhere", True),
        ("HF_HUB_CACHE", "/elsewhere", True),
        ("HF_ENDPOINT", "", False),
        ("HF_ENDPOINT", "https://mirror.example", True),
        ("HF_HUB_OFFLINE", "true", False),
        ("HF_HUB_OFFLINE", "0", True),
    ],
)
def test_a_client_notices_every_variable_that_differs(
    worker: Home, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, differs: bool
) -> None:
    with worker.client() as client:
        monkeypatch.setenv(variable, value.format(cwd=Path.cwd()))
        assert has_other_variables(client.worker) is differs
        assert TOKEN not in json.dumps([client.worker, client.request(p.Status())])
        assert client.worker["hub"]["digest"] not in log_path().read_text()
    assert not has_other_variables({"type": "hello"})  # of an older worker


def test_commands_say_what_to_do(
    worker: Home, run: Callable[..., CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with worker.client() as client:
        job = TrainJob(FOX, model="ViT-B-32-quickgelu/openai", device="cpu")
        failed = client.request(p.Submit(job.as_dict()))["id"]
    assert worker.wait_until_ended(failed).error_kind == "ModelUnavailable"
    assert ADVICE not in run("attach", failed).stderr
    assert "other HF_ variables" not in run("doctor").stdout
    with monkeypatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_other")
        assert ADVICE in run("attach", failed).stderr
        assert ADVICE in run("train", FOX, "--background", "--model", job.model).stderr
        assert "! worker" in (report := run("doctor").stdout)
        assert "other HF_ variables" in report
