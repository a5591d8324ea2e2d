"""Names of models: which kind each stands for, without loading a model or asking the hub."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from softprompt.encoders import catalog
from softprompt.encoders.catalog import LANGUAGE_MODELS, find_local, model_kind, resolve
from softprompt.encoders.causal_lm.facts import Sizes, read_sizes
from softprompt.encoders.causal_lm.folder import FAMILIES
from softprompt.encoders.hub_cache import DiskState, describe, list_language_models, scan
from softprompt.encoders.loading import load_encoder, load_model
from softprompt.errors import ModelRefused, UnknownModel
from tests.softprompt.encoders.causal_lm.tiny_models import CONFIGS, CONTEXT, change_json, save_model

COMMIT = "a" * 40


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model("Llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def hub_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_into_cache(folder: Path, repository: str, hub: Path) -> Path:
    """Put a model's files into the hub's cache. Return the snapshot."""
    root = hub / f"models--{repository.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text(COMMIT)
    for file in folder.iterdir():
        (snapshot / file.name).write_bytes(file.read_bytes())
    return snapshot


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "text") for name in ("mini", "MINI", "ViT-L-14/openai", "no such model", "", " ", "local-dir:", "\0")),
        *((name, "text") for name in ("local-dir:/nowhere", "x" * 5000, "~nobody-here/x", "smollm", "a/b")),
        *((name, "causal") for name in ("smollm2", "SmolLM2-Q4", "hf:owner/name", "hf:HuggingFaceTB/x", "hf:")),
        *((name, "causal") for name in ("a.gguf", "/nowhere/a.GGUF", "local-dir:b.gguf")),
    ],
)
def test_the_kind_of_a_name_needs_neither_the_model_nor_the_list(
    name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_read_open_clip", pytest.fail)
    assert model_kind(name) == kind


@pytest.mark.parametrize("model_type", [*FAMILIES, "clip", "mamba", None, 5, ["llama"], {}])
def test_the_kind_of_a_folder_is_in_its_configuration(
    model_type: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model" / "config.json").write_text(json.dumps({"model_type": model_type}))
    expected = "causal" if isinstance(model_type, str) and model_type in FAMILIES else "text"
    for name in ("model", str(tmp_path / "model"), f"local-dir:{tmp_path}/model", "local-dir:model"):
        assert model_kind(name) == expected
    (tmp_path / "model" / "config.json").write_text("[" * 100_000)
    assert model_kind("model") == "text"


def test_a_model_has_one_name(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "_read_open_clip", pytest.fail)  # the list takes seconds, and they are not in it
    assert resolve("SMOLLM2") is resolve("hf:HuggingFaceTB/SmolLM2-135M-Instruct") is LANGUAGE_MODELS[0]
    assert resolve("smollm2-q4") is LANGUAGE_MODELS[1]
    assert resolve("hf:Qwen/Qwen3-0.6B").repository == "Qwen/Qwen3-0.6B"
    monkeypatch.chdir(llama.parent)
    assert resolve(llama.name) == resolve(f"local-dir:{llama}")
    assert resolve(llama.name).name == f"local-dir:{llama}"
    assert find_local("mini") is find_local("smollm2") is find_local("hf:a/b") is find_local("ViT-B-32/openai") is None
    for name in ("hf:", "hf:only-a-name", "hf:a/../b", "hf:a/b/c"):
        with pytest.raises(UnknownModel, match="Write hf:OWNER/NAME"):
            resolve(name)


@pytest.mark.parametrize("family", CONFIGS)
def test_the_sizes_come_from_the_files(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = save_model(family, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    parameters = sum(weight.numel() for weight in model.parameters())
    width = model.get_input_embeddings().weight.shape[1]
    assert read_sizes(folder) == Sizes(width, 2, CONTEXT, parameters)
    assert resolve(str(folder)).parameters == parameters


def test_damaged_files_give_no_sizes(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    header = json.dumps({"a": {"shape": [10**30] * 9}, "b": {"shape": "x"}, "c": 5}).encode()
    with_length = len(header).to_bytes(8, "little") + header
    for damaged in (b"", b"x", bytes(8), b"\xff" * 100, (9).to_bytes(8, "little") + b"[1]", with_length):
        (tmp_path / "model.safetensors").write_bytes(damaged)
        assert read_sizes(tmp_path) == Sizes(32, 2, CONTEXT, 0)
    change_json(tmp_path / "config.json", hidden_size="wide", num_hidden_layers=-1, max_position_embeddings=True)
    assert read_sizes(tmp_path) == Sizes()


def test_language_models_in_the_hubs_cache_are_listed(llama: Path, hub_cache_folder: Path, tmp_path: Path) -> None:
    snapshot = put_into_cache(llama, "owner/tiny", hub_cache_folder)
    put_into_cache(llama, "HuggingFaceTB/SmolLM2-135M-Instruct", hub_cache_folder)  # has a name in the list
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "config.json").write_text('{"model_type": "clip"}')
    for repository in ("openai/clip", "timm/model"):
        put_into_cache(tmp_path / "clip", repository, hub_cache_folder)
    for name in ("models--broken", "models--a--b--c", "models--x--y", "models--..--z"):
        (hub_cache_folder / name).mkdir()
    (info,) = list_language_models()
    assert info == resolve("hf:owner/tiny")
    assert (info.name, info.kind, info.width, info.layers, info.context) == ("hf:owner/tiny", "causal", 32, 2, CONTEXT)
    size = (llama / "model.safetensors").stat().st_size
    assert scan([info])[info.name] == DiskState(snapshot / "model.safetensors", size)
    (described,) = describe([info])
    assert (described["kind"], described["bytes"], described["on_disk"]) == ("causal", size, True)
    (snapshot / "model.safetensors").unlink()
    assert list_language_models() == []
    assert info.weights_path is None


def test_all_files_of_a_model_count(llama: Path, hub_cache_folder: Path) -> None:
    snapshot = put_into_cache(llama, "owner/tiny", hub_cache_folder)
    weights = (snapshot / "model.safetensors").read_bytes()
    (snapshot / "model.safetensors").rename(snapshot / "a.safetensors")
    (snapshot / "b.safetensors").write_bytes(weights)
    (snapshot / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    )
    info = resolve("hf:owner/tiny")
    assert scan([info])[info.name] == DiskState(snapshot / "a.safetensors", 2 * len(weights))
    (snapshot / "b.safetensors").unlink()
    assert scan([info])[info.name] == DiskState()


def test_one_function_loads_any_model(llama: Path) -> None:
    assert load_model("mini", "cpu").name == "mini"
    model = load_model(str(llama), "cpu")
    assert (model.name, model.width) == (f"local-dir:{llama}", 32)
    for name in ("smollm2", "smollm2-q4", "hf:a/b", str(llama), "a.gguf"):
        with pytest.raises(ModelRefused, match=r"is a language model.*softprompt\.load_causal_lm\("):
            load_encoder(name, "cpu")


def test_the_list_says_what_needs_a_package() -> None:
    info = LANGUAGE_MODELS[0]
    assert info.needs_transformers
    assert info.as_dict()["needs_transformers"]
    assert not replace(info, kind="text").needs_transformers
