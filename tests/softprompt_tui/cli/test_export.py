"""`softprompt-tui export`: what it prints, what it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softprompt import Library
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]
CLIP_L, CLIP_G = "ViT-L-14-quickgelu/openai", "ViT-bigG-14/laion2b_s39b_b160k"


@pytest.fixture
def here(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder; the library has a pair for SDXL and one of mini."""
    library = Library()
    for name, width, model in (("lake l", 768, CLIP_L), ("lake g", 1280, CLIP_G), ("lake", 256, "mini")):
        library.save(a_prompt(name=name, vectors=np.ones((2, width), np.float32), model=model, hidden={"sd1": 0.91}))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_it_says_what_to_type_on_stdout_and_the_rest_on_stderr(here: Path, run: Run) -> None:
    done = run("export", "lake l", "--to", "comfyui")
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"written      {here}/lake-l.safetensors",
        "use          embedding:lake-l",
        "in a prompt  a photo of embedding:lake-l at night",
    ]
    notes = done.stderr.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    assert (
        "note: Stable Diffusion 1.x reads the hidden states of the last layer: similarity 0.9100, pooled 0.9971"
        in notes
    )


def test_json_is_one_document(here: Path, run: Run) -> None:
    done = run("export", "lake l", "--to", "diffusers", "--token", "<lake>", "--json")
    told = json.loads(done.stdout)
    path = f"{here}/lake-l.learned_embeds.safetensors"
    assert done.stderr == ""
    assert told.keys() == {"format", "paths", "line", "word", "notes"}
    assert (told["format"], told["paths"], told["word"]) == ("diffusers", [path], "<lake>")
    assert told["line"] == f'pipe.load_textual_inversion("{path}", token="<lake>")'


def test_a_pair_for_sdxl(here: Path, run: Run) -> None:
    done = run("export", "lake g", "--sdxl", "lake l", "--to", "diffusers", "--out", "pair.safetensors")
    assert done.returncode == 0
    assert done.stdout.count("pipe.load_textual_inversion") == 2
    assert (here / "pair.safetensors").exists()
    assert run("export", "lake l", "--sdxl", "lake").returncode == 2


def test_without_a_format_it_writes_the_file_for_everyone(here: Path, run: Run) -> None:
    done = run("export", "lake l")
    assert (here / "lake-l.safetensors").exists()
    assert (
        "the file loads as is in AUTOMATIC1111 and Forge (lake-l), ComfyUI (embedding:lake-l), kohya (lake-l), InvokeAI (<lake-l>)"
        in done.stderr
    )


def test_refusals_are_bad_input_and_leave_nothing(here: Path, run: Run) -> None:
    for args, said in (
        (("lake", "--to", "a1111"), "AUTOMATIC1111 cannot use lake, which has width 256"),
        (("lake", "--to", "word"), "'word' is not one of 'safetensors'"),
        (("nothing",), "no soft prompt is named 'nothing'"),
        (("lake", "--token", "<x>"), "--token only works with diffusers"),
    ):
        done = run("export", *args)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
    assert list(here.iterdir()) == []
    assert run("export", "lake", "--to", "numpy").returncode == 0
    assert run("export", "lake", "--to", "numpy").returncode == 2
    assert run("export", "lake", "--to", "numpy", "--force").returncode == 0


def test_nothing_in_a_path_or_name_steers_the_terminal(here: Path, run: Run) -> None:
    (here / "a\x1b[31m").mkdir()
    done = run("export", "lake", "--to", "peft", "--out", "a\x1b[31m")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout + done.stderr
    assert (here / "a\x1b[31m" / "lake-peft" / "adapter_config.json").exists()
