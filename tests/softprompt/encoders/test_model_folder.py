"""Untrusted model folders: no code from them runs, and inconsistent ones are rejected when they are loaded."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import softprompt
from softprompt.errors import ModelRefused, ModelUnavailable
from softprompt.worker.log import PROGRAM, log_path
from tests.softprompt.encoders.test_openclip import SENTENCE, write_model_folder

Run = Callable[..., CompletedProcess[str]]
WEIGHTS = "open_clip_model.safetensors"
CODE = """
from pathlib import Path
Path({marker!r}).touch()
from transformers import PreTrainedConfig, PreTrainedTokenizer
class Planted(PreTrainedTokenizer): ...
class Config(PreTrainedConfig): ...
"""


class Pickled:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return Path.touch, (self.marker,)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small model."""
    folder = tmp_path_factory.mktemp("plain")
    write_model_folder(folder)
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "model")


def change_text_config(folder: Path, **text_cfg: Any) -> None:
    """Change the `text_cfg` of a folder, but not its weights."""
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] |= text_cfg
    path.write_text(json.dumps(config))


def write_json_files(folder: Path, **files: Any) -> None:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def plant_tokenizer_code(folder: Path, marker: Path) -> None:
    change_text_config(folder, hf_tokenizer_name="its own")
    write_json_files(
        folder,
        tokenizer_config={"auto_map": {"AutoTokenizer": ["planted.Planted", None]}, "tokenizer_class": "Planted"},
    )


def plant_configuration_code(folder: Path, marker: Path) -> None:
    change_text_config(folder, hf_tokenizer_name="its own")
    write_json_files(folder, config={"model_type": "planted", "auto_map": {"AutoConfig": "planted.Config"}})


def plant_model_code(folder: Path, marker: Path) -> None:
    change_text_config(folder, hf_tokenizer_name="its own")
    write_json_files(
        folder, config={"model_type": "bert", "auto_map": {"AutoModel": "planted.Planted"}}, tokenizer_config={}
    )


def plant_code_in_a_part(folder: Path, marker: Path) -> None:
    """A tokenizer made of two others. transformers loads them without passing `trust_remote_code=False` on."""
    change_text_config(folder, hf_tokenizer_name="its own")
    part = {"model_type": "vit"}  # a type without a tokenizer
    write_json_files(folder, config={"model_type": "rag", "question_encoder": part, "generator": part})
    write_json_files(folder, tokenizer_config={"tokenizer_class": "RagTokenizer"})
    inner = folder / "question_encoder_tokenizer"
    write_json_files(
        inner, tokenizer_config={"auto_map": {"AutoTokenizer": ["planted.Planted", None]}, "tokenizer_class": "Planted"}
    )
    shutil.copy(folder / "planted.py", inner)


def plant_trusting_settings(folder: Path, marker: Path) -> None:
    plant_tokenizer_code(folder, marker)
    change_text_config(folder, tokenizer_kwargs={"trust_remote_code": True})


def plant_pickled_weights(folder: Path, marker: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"state_dict": Pickled(marker)}, folder / "open_clip_pytorch_model.bin")


def plant_pickled_checkpoint(folder: Path, marker: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"state_dict": {"x": torch.ones(1)}, "optimizer": Pickled(marker)}, folder / "epoch_3.pt")


ATTACKS = (
    plant_tokenizer_code, plant_configuration_code, plant_model_code, plant_code_in_a_part, plant_trusting_settings,
    plant_pickled_weights, plant_pickled_checkpoint,
)  # fmt: skip


@pytest.mark.parametrize("plant", ATTACKS, ids=lambda plant: plant.__name__)
def test_no_code_from_a_folder_runs_even_if_the_user_would_agree(
    plant: Callable[[Path, Path], None], folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = tmp_path / "marker"
    (folder / "planted.py").write_text(CODE.format(marker=str(marker)))
    plant(folder, marker)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    result = run(
        "train",
        SENTENCE,
        "-k",
        "1",
        "--steps",
        "2",
        "--model",
        f"local-dir:{folder}",
        TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD="1",
    )
    assert not marker.exists()
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.stderr
    assert "is not supported: its " in result.stderr or "a pickle that contains more than weights" in result.stderr
    assert sys.stdin.read() == "y\n" * 9, "a library prompted the user"


def test_messages_of_libraries_go_to_the_log_without_control_characters(folder: Path, run: Run) -> None:
    """transformers quotes an unknown model_type in a warning, through its own log handler."""
    change_text_config(folder, hf_tokenizer_name="its own")
    write_json_files(folder, config={"model_type": "a\x1b]0;owned\x07"}, tokenizer_config={})
    output = io.StringIO()
    logging.getLogger("transformers").addHandler(logging.StreamHandler(output))
    result = run("train", SENTENCE, "-k", "1", "--steps", "2", "--model", f"local-dir:{folder}")
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "\x1b" not in result.stderr
    assert output.getvalue() == ""
    log = log_path(PROGRAM).read_text()
    assert "a\\x1b]0;owned\\x07" in log
    assert log.replace("\n", "").isprintable()
    logging.getLogger("a.library").addHandler(logging.StreamHandler(output))  # a library that is imported later
    logging.getLogger("a.library").propagate = False
    logging.getLogger("a.library").warning("\x1b[2J later")
    assert output.getvalue() == ""
    assert "later" in log_path(PROGRAM).read_text()


def test_embedding_rows_beyond_the_tokenizer_are_ignored(tmp_path: Path) -> None:
    name, _ = write_model_folder(tmp_path / "model", text_cfg={"vocab_size": 49_500})
    path = tmp_path / "model" / WEIGHTS
    weights = load_file(path)
    weights["token_embedding.weight"][49_408:] = 1e4  # untrained rows may have any value
    save_file(weights, path)
    encoder = softprompt.load_encoder(name, device="cpu")
    assert int(encoder.ordinary_ids.max()) < 49_408
    assert encoder.token_norm < 1
    assert encoder.token_std < 1
    prompt = softprompt.train(encoder, SENTENCE, tokens=2, steps=3)
    assert len(prompt.readout) == 2


@pytest.mark.parametrize(
    ("text_cfg", "message"),
    [
        ({"vocab_size": 1_000}, "it has 1,000 token embeddings, but its tokenizer has 49,408 tokens"),
        ({"vocab_size": 49_409}, "its weights have 49,408 x 64 (tokens, width), but its text_cfg has 49,409 x 64"),
        ({"width": 128}, "its weights have 49,408 x 64 (tokens, width), but its text_cfg has 49,408 x 128"),
        ({"context_length": 32}, "its weights have 77 x 64 (positions, width), but its text_cfg has 32 x 64"),
        ({"context_length": 2}, "its context length of 2 leaves no room for a prompt besides 2 start and end tokens"),
        ({"layers": 0}, "its text_cfg has layers = 0; it must be 1 to 1,024"),
        ({"heads": "2"}, "its text_cfg has heads = '2'"),
        ({"tokenizer_kwargs": "clean"}, "its text_cfg has tokenizer_kwargs = 'clean'; it must be a dict"),
        ({"tokenizer_kwargs": {"additional_special_tokens": ["("]}}, "additional_special_tokens is"),
        ({"text_arch": "modern"}, "its text_cfg has text_arch = 'modern', which this version does not support"),
        ({"registers": 4}, "its text_cfg has registers = 4"),
    ],
)
def test_an_inconsistent_folder_is_rejected_when_it_is_loaded(
    folder: Path, text_cfg: dict[str, Any], message: str
) -> None:
    change_text_config(folder, **text_cfg)
    with pytest.raises(ModelRefused) as error:
        softprompt.load_encoder(f"local-dir:{folder}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tokenizer_without_words_is_rejected(folder: Path) -> None:
    change_text_config(folder, hf_tokenizer_name="its own")
    write_json_files(folder, config={"model_type": "bert"}, tokenizer_config={})
    with pytest.raises(ModelRefused, match="its tokenizer has no token that can be shown and typed"):
        softprompt.load_encoder(f"local-dir:{folder}")


def test_open_clip_4s_name_for_the_clip_tower_is_accepted(folder: Path) -> None:
    change_text_config(folder, text_arch="clip")
    assert softprompt.load_encoder(f"local-dir:{folder}", device="cpu").width == 64


def test_the_error_for_weights_of_another_size_names_the_first_difference(folder: Path) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["embed_dim"] = 16
    path.write_text(json.dumps(config))
    with pytest.raises(
        ModelRefused, match=r"its weights do not match its configuration \(.*size mismatch for \S+: [^\n]*\)"
    ):
        softprompt.load_encoder(f"local-dir:{folder}")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_training_checkpoint_gives_the_same_embeddings(folder: Path, legacy: bool) -> None:
    expected = softprompt.load_encoder(f"local-dir:{folder}", device="cpu")
    state = {f"module.{key}": value for key, value in load_file(folder / WEIGHTS).items()}
    (folder / WEIGHTS).unlink()
    checkpoint = {
        "epoch": 3,
        "name": "a run",
        "state_dict": state,
        "optimizer": {"state": {0: {"step": torch.ones(1)}}},
    }
    torch.save(checkpoint, folder / "epoch_3.pt", _use_new_zipfile_serialization=not legacy)
    encoder = softprompt.load_encoder(f"local-dir:{folder}", device="cpu")
    assert encoder.fingerprint == expected.fingerprint


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            [],
            r"it contains no weights. Add open_clip_model.safetensors, .*model.pth, or a single file .*.pt\.$",
        ),
        (["epoch_2.pt", "epoch_3.pt"], r"it contains 2 weight files \(epoch_2.pt, epoch_3.pt\). Keep only one"),
    ],
)
def test_missing_or_ambiguous_weights_are_reported_with_file_names(
    folder: Path, files: list[str], message: str
) -> None:
    (folder / WEIGHTS).unlink()
    for name in files:
        (folder / name).touch()
    with pytest.raises(ModelUnavailable, match=message):
        softprompt.load_encoder(f"local-dir:{folder}")


def test_a_pipe_as_configuration_does_not_block(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()
    os.mkfifo(folder / "open_clip_config.json")
    with pytest.raises(ModelUnavailable, match="it is not a regular file"):
        softprompt.load_encoder(f"local-dir:{folder}")
