"""`softprompt-tui export`: output, files and exit codes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from softprompt import Library
from softprompt.encoders.causal_lm.loading import load_causal_lm
from tests.library_model import a_prompt
from tests.softprompt.conftest import CHATML
from tests.softprompt.encoders.causal_lm.tiny_models import save_model
from tests.softprompt.formats.language_prompts import make_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]
CLIP_L, CLIP_G = "ViT-L-14-quickgelu/openai", "ViT-bigG-14/laion2b_s39b_b160k"


@pytest.fixture
def work_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder. The library has two soft prompts that form a pair for SDXL, and one for mini."""
    library = Library()
    for name, width, model in (("lake l", 768, CLIP_L), ("lake g", 1280, CLIP_G), ("lake", 256, "mini")):
        library.save(a_prompt(name=name, vectors=np.ones((2, width), np.float32), model=model, hidden={"sd1": 0.91}))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def test_stdout_says_what_to_type_and_stderr_has_the_notes(work_folder: Path, run: Run) -> None:
    result = run("export", "lake l", "--to", "comfyui")
    assert result.returncode == 0
    assert result.stdout.splitlines() == [
        f"written      {work_folder}/lake-l.safetensors",
        "use          embedding:lake-l",
        "in a prompt  a photo of embedding:lake-l at night",
    ]
    notes = result.stderr.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    assert (
        "note: Stable Diffusion 1.x reads the hidden states of the last layer: similarity 0.9100, pooled 0.9971"
        in notes
    )


def test_json_is_one_document(work_folder: Path, run: Run) -> None:
    result = run("export", "lake l", "--to", "diffusers", "--token", "<lake>", "--json")
    document = json.loads(result.stdout)
    path = f"{work_folder}/lake-l.learned_embeds.safetensors"
    assert result.stderr == ""
    assert document.keys() == {"format", "paths", "line", "word", "notes"}
    assert (document["format"], document["paths"], document["word"]) == ("diffusers", [path], "<lake>")
    assert document["line"] == f'pipe.load_textual_inversion("{path}", token="<lake>")'


def test_two_soft_prompts_are_exported_as_a_pair_for_sdxl(work_folder: Path, run: Run) -> None:
    result = run("export", "lake g", "--sdxl", "lake l", "--to", "diffusers", "--out", "pair.safetensors")
    assert result.returncode == 0
    assert result.stdout.count("pipe.load_textual_inversion") == 2
    assert (work_folder / "pair.safetensors").exists()
    assert run("export", "lake l", "--sdxl", "lake").returncode == 2


def test_without_a_format_it_writes_a_file_that_most_programs_load(work_folder: Path, run: Run) -> None:
    result = run("export", "lake l")
    assert (work_folder / "lake-l.safetensors").exists()
    assert (
        "the file loads as is in AUTOMATIC1111 and Forge (lake-l), ComfyUI (embedding:lake-l), kohya (lake-l), "
        "InvokeAI (<lake-l>)" in result.stderr
    )


def test_refused_exports_exit_with_2_and_write_nothing(work_folder: Path, run: Run) -> None:
    for args, message in (
        (("lake", "--to", "a1111"), "AUTOMATIC1111 cannot use lake: its width is 256"),
        (("lake", "--to", "word"), "'word' is not one of 'safetensors'"),
        (("nothing",), "no soft prompt is named 'nothing'"),
        (("lake", "--token", "<x>"), "--token only works with diffusers"),
    ):
        result = run("export", *args)
        assert (result.returncode, result.stdout) == (2, "")
        assert message in result.stderr
    assert list(work_folder.iterdir()) == []
    assert run("export", "lake", "--to", "numpy").returncode == 0
    assert run("export", "lake", "--to", "numpy").returncode == 2
    assert run("export", "lake", "--to", "numpy", "--force").returncode == 0


def test_control_characters_in_a_path_never_reach_the_terminal(work_folder: Path, run: Run) -> None:
    (work_folder / "a\x1b[31m").mkdir()
    result = run("export", "lake", "--to", "peft", "--out", "a\x1b[31m")
    assert result.returncode == 0
    assert "\x1b" not in result.stdout + result.stderr
    assert (work_folder / "a\x1b[31m" / "lake-peft" / "adapter_config.json").exists()


def test_a_language_models_soft_prompt_is_exported_with_code(work_folder: Path, run: Run, tmp_path: Path) -> None:
    """The model is loaded by the name in the entry, or by that of --model."""
    folder = tmp_path / "llama"
    folder.mkdir()
    model = load_causal_lm(save_model("Llama", folder, CHATML), "cpu")
    Library().save(make_prompt(model))
    result = run("export", "pirate", "--to", "transformers")
    assert result.returncode == 0, result.stderr
    written, code = result.stdout.split("\n", 1)
    assert written == f"written      {work_folder}/pirate.safetensors"
    assert code.startswith("import torch\n")
    compile(code, "code", "exec")
    assert f"note: the vectors only work with {model.name}, in placement system" in result.stderr
    moved = folder.rename(tmp_path / "moved")
    result = run("export", "pirate", "--to", "sglang", "--question", "Who?", "--model", f"local-dir:{moved}", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["paths"] == [f"{work_folder}/pirate.sglang.json"]
    for args, message in (
        (("pirate", "--to", "peft"), f"there is no folder {folder}"),
        (("pirate", "--to", "sglang"), "Use --question TEXT to write a request"),  # before it looks for the model
        (("pirate", "--to", "comfyui"), "the format comfyui is for soft prompts of text encoders"),
        (("lake", "--to", "vllm"), "the format vllm is for soft prompts of language models"),
        (("pirate", "--to", "numpy", "--model", "mini"), "--model is for language models"),
        (("lake", "--to", "numpy", "--question", "Who?"), "--question only works with soft prompts of language models"),
    ):
        result = run("export", *args)
        assert (result.returncode, result.stdout) == (2, ""), args
        assert message in result.stderr
