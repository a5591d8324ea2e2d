"""Model folders that nobody vouches for: nothing in them runs, and what does not fit together is refused when it is loaded."""

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
from tests.softprompt.encoders.test_openclip import SENTENCE, local_dir

Run = Callable[..., CompletedProcess[str]]
WEIGHTS = "open_clip_model.safetensors"
CODE = """
from pathlib import Path
Path({ran!r}).touch()
from transformers import PreTrainedConfig, PreTrainedTokenizer
class Planted(PreTrainedTokenizer): ...
class Config(PreTrainedConfig): ...
"""


class Pickled:
    """Whoever unpickles this makes a file."""

    def __init__(self, ran: Path) -> None:
        self.ran = ran

    def __reduce__(self) -> Any:
        return Path.touch, (self.ran,)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model's folder."""
    folder = tmp_path_factory.mktemp("plain")
    local_dir(folder)
    return folder


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "model")


def change(folder: Path, **text_cfg: Any) -> None:
    """Change settings of the text tower in a folder's configuration, not in its weights."""
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"] |= text_cfg
    path.write_text(json.dumps(config))


def write(folder: Path, **files: Any) -> None:
    folder.mkdir(exist_ok=True)
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def tokenizer_code(folder: Path, ran: Path) -> None:
    change(folder, hf_tokenizer_name="its own")
    write(
        folder,
        tokenizer_config={"auto_map": {"AutoTokenizer": ["planted.Planted", None]}, "tokenizer_class": "Planted"},
    )


def configuration_code(folder: Path, ran: Path) -> None:
    change(folder, hf_tokenizer_name="its own")
    write(folder, config={"model_type": "planted", "auto_map": {"AutoConfig": "planted.Config"}})


def model_code(folder: Path, ran: Path) -> None:
    change(folder, hf_tokenizer_name="its own")
    write(folder, config={"model_type": "bert", "auto_map": {"AutoModel": "planted.Planted"}}, tokenizer_config={})


def code_of_a_part(folder: Path, ran: Path) -> None:
    """A tokenizer made of two, which transformers loads without passing on that no code may run."""
    change(folder, hf_tokenizer_name="its own")
    part = {"model_type": "vit"}  # one that has no tokenizer of its own
    write(folder, config={"model_type": "rag", "question_encoder": part, "generator": part})
    write(folder, tokenizer_config={"tokenizer_class": "RagTokenizer"})
    inner = folder / "question_encoder_tokenizer"
    write(
        inner, tokenizer_config={"auto_map": {"AutoTokenizer": ["planted.Planted", None]}, "tokenizer_class": "Planted"}
    )
    shutil.copy(folder / "planted.py", inner)


def trusting_settings(folder: Path, ran: Path) -> None:
    tokenizer_code(folder, ran)
    change(folder, tokenizer_kwargs={"trust_remote_code": True})


def pickled_weights(folder: Path, ran: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"state_dict": Pickled(ran)}, folder / "open_clip_pytorch_model.bin")


def pickled_checkpoint(folder: Path, ran: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"state_dict": {"x": torch.ones(1)}, "optimizer": Pickled(ran)}, folder / "epoch_3.pt")


CANARIES = (
    tokenizer_code, configuration_code, model_code, code_of_a_part, trusting_settings, pickled_weights, pickled_checkpoint,
)  # fmt: skip


@pytest.mark.parametrize("plant", CANARIES, ids=lambda plant: plant.__name__)
def test_no_code_from_a_folder_runs_even_if_the_user_would_say_yes(
    plant: Callable[[Path, Path], None], folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    (folder / "planted.py").write_text(CODE.format(ran=str(ran)))
    plant(folder, ran)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 9))
    done = run(
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
    assert not ran.exists()
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "is not supported: its " in done.stderr or "a pickle with more than weights" in done.stderr
    assert sys.stdin.read() == "y\n" * 9, "something was asked"


def test_what_libraries_say_goes_to_the_log_with_nothing_in_it_that_steers(folder: Path, run: Run) -> None:
    """transformers warns of an unknown model_type, word for word, through a handler of its own."""
    change(folder, hf_tokenizer_name="its own")
    write(folder, config={"model_type": "a\x1b]0;owned\x07"}, tokenizer_config={})
    said = io.StringIO()
    logging.getLogger("transformers").addHandler(logging.StreamHandler(said))
    done = run("train", SENTENCE, "-k", "1", "--steps", "2", "--model", f"local-dir:{folder}")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "\x1b" not in done.stderr
    assert said.getvalue() == ""
    log = log_path(PROGRAM).read_text()
    assert "a\\x1b]0;owned\\x07" in log
    assert log.replace("\n", "").isprintable()
    logging.getLogger("a.library").addHandler(logging.StreamHandler(said))  # one that is imported only later
    logging.getLogger("a.library").propagate = False
    logging.getLogger("a.library").warning("\x1b[2J later")
    assert said.getvalue() == ""
    assert "later" in log_path(PROGRAM).read_text()


def test_rows_beyond_the_tokenizer_take_no_part(tmp_path: Path) -> None:
    name, _ = local_dir(tmp_path / "model", text_cfg={"vocab_size": 49_500})
    path = tmp_path / "model" / WEIGHTS
    weights = load_file(path)
    weights["token_embedding.weight"][49_408:] = 1e4  # what never was trained may hold anything
    save_file(weights, path)
    encoder = softprompt.load_encoder(name, device="cpu")
    assert int(encoder.ordinary_ids.max()) < 49_408
    assert encoder.token_norm < 1
    assert encoder.token_std < 1
    made = softprompt.train(encoder, SENTENCE, tokens=2, steps=3)
    assert len(made.readout) == 2


@pytest.mark.parametrize(
    ("text_cfg", "said"),
    [
        ({"vocab_size": 1_000}, "the model has 1,000 token rows, its tokenizer 49,408"),
        ({"vocab_size": 49_409}, "its weights have 49,408 x 64 for token rows and width, its text_cfg 49,409 x 64"),
        ({"width": 128}, "its weights have 49,408 x 64 for token rows and width, its text_cfg 49,408 x 128"),
        ({"context_length": 32}, "its weights have 77 x 64 for positions and width, its text_cfg 32 x 64"),
        ({"context_length": 2}, "its context of 2 has no room for a prompt beside 2 start and end tokens"),
        ({"layers": 0}, "its text_cfg has layers = 0; it must be 1 to 1,024"),
        ({"heads": "2"}, "its text_cfg has heads = '2'"),
        ({"tokenizer_kwargs": "clean"}, "its text_cfg has tokenizer_kwargs = 'clean'; it must be a dict"),
        ({"tokenizer_kwargs": {"additional_special_tokens": ["("]}}, "additional_special_tokens is"),
        ({"text_arch": "modern"}, "its text_cfg has text_arch = 'modern', which this version does not know"),
        ({"registers": 4}, "its text_cfg has registers = 4"),
    ],
)
def test_what_does_not_fit_together_is_refused_when_it_is_loaded(
    folder: Path, text_cfg: dict[str, Any], said: str
) -> None:
    change(folder, **text_cfg)
    with pytest.raises(ModelRefused) as refused:
        softprompt.load_encoder(f"local-dir:{folder}")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_tokenizer_without_words_is_refused_before_a_training(folder: Path) -> None:
    change(folder, hf_tokenizer_name="its own")
    write(folder, config={"model_type": "bert"}, tokenizer_config={})
    with pytest.raises(ModelRefused, match="its tokenizer has no token that can be read and typed"):
        softprompt.load_encoder(f"local-dir:{folder}")


def test_a_tower_that_open_clip_4_calls_clip_is_open_clip_3s(folder: Path) -> None:
    change(folder, text_arch="clip")
    assert softprompt.load_encoder(f"local-dir:{folder}", device="cpu").width == 64


def test_weights_of_another_size_are_refused_with_the_first_that_differs(folder: Path) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["embed_dim"] = 16
    path.write_text(json.dumps(config))
    with pytest.raises(
        ModelRefused, match=r"its weights do not fit its configuration \(.*size mismatch for \S+: [^\n]*\)"
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
    ("files", "said"),
    [
        (
            [],
            "it has no weights. Looked for open_clip_model.safetensors, .*model.pth, or one other file that ends in .*.pt$",
        ),
        (["epoch_2.pt", "epoch_3.pt"], r"it has 2 files of weights \(epoch_2.pt, epoch_3.pt\). Leave one"),
    ],
)
def test_weights_that_cannot_be_chosen_are_said_with_their_names(folder: Path, files: list[str], said: str) -> None:
    (folder / WEIGHTS).unlink()
    for name in files:
        (folder / name).touch()
    with pytest.raises(ModelUnavailable, match=said):
        softprompt.load_encoder(f"local-dir:{folder}")


def test_a_pipe_in_the_place_of_a_configuration_is_not_waited_for(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()
    os.mkfifo(folder / "open_clip_config.json")
    with pytest.raises(ModelUnavailable, match="it is not a regular file"):
        softprompt.load_encoder(f"local-dir:{folder}")
