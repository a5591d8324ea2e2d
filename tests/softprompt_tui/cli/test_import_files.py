"""`import` and `assign`, and how every command treats the unknown fields of an imported soft prompt."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from softprompt.encoders import loading
from softprompt.formats.importer import find_candidate_models
from softprompt.jobs.job import Job
from softprompt_tui.cli.report import print_line
from softprompt_tui.messages import LibraryChanged
from softprompt_tui.screens.entry_details import EntryDetailsScreen
from softprompt_tui.screens.text_viewer import TextScreen
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def embedding_file(tmp_path: Path) -> Path:
    """Write an embedding of mini's width that has its own metadata, and return its path."""
    path = tmp_path / "fox.safetensors"
    vectors = np.random.default_rng(0).standard_normal((2, 256), dtype=np.float32)
    path.write_bytes(save({"emb_params": vectors}, {"name": "red fox", "step": "300", "description": "\x1b[31mred"}))
    return path


def test_import_prints_the_metadata_the_unknown_fields_and_how_to_assign_a_model(
    embedding_file: Path, run: Run, home: Path
) -> None:
    result = run("import", str(embedding_file), "--tag", "animal", COLUMNS="80")
    lines = {line[:12].strip(): line[13:] for line in result.stdout.splitlines()}
    assert (result.returncode, result.stderr) == (0, "")
    assert lines["name"] == "red fox"
    assert lines["soft tokens"] == "2 of width 256, on an unknown model"
    assert lines["format"] == "emb_params (AUTOMATIC1111, ComfyUI, kohya), safetensors"
    assert lines["file says"] == "description ␛[31mred; name red fox; step 300"
    assert lines["unknown"] == "hard prompt, model, similarity"
    assert lines["candidates"] == "mini"
    assert lines["set model"] == "softprompt-tui assign 'red fox' --model mini"
    assert Path(lines["saved"].split("  ")[0]).is_file()
    second = run("import", str(embedding_file))
    assert "already in the library; nothing was added" in second.stdout
    run("rm", "red fox")
    trashed = run("import", str(embedding_file))
    assert "in the trash and stays there; run `softprompt-tui restore" in trashed.stdout


def test_assign_sets_the_model_once_and_makes_the_soft_prompt_usable(embedding_file: Path, run: Run) -> None:
    run("import", str(embedding_file))
    result = run("assign", "red fox", "--model", "mini")
    assert result.returncode == 0
    assert "2 on mini" in result.stdout
    assert "alternatives" in result.stdout
    assert json.loads(run("readout", "red fox", "--json").stdout)["readout_similarity"] is None
    second = run("assign", "red fox", "--model", "mini")
    assert (second.returncode, second.stdout) == (2, "")
    assert "red fox belongs to mini" in second.stderr


def test_port_needs_the_hard_prompt_that_assign_sets(
    embedding_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = run("import", str(embedding_file))
    assert "set prompt   softprompt-tui assign 'red fox' --prompt TEXT" in imported.stdout
    refused = run("port", "red fox", "--model", "mini")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "`softprompt-tui assign 'red fox' --prompt TEXT`" in refused.stderr
    assigned = run("assign", "red fox", "--prompt", "a red fox in snow")
    assert assigned.returncode == 0
    assert "hard prompt  a red fox in snow" in assigned.stdout
    assert "similarity   unknown" in assigned.stdout
    second = run("assign", "red fox", "--prompt", "a boat")
    assert (second.returncode, second.stdout) == (2, "")
    assert "Use --again to replace a wrong one" in second.stderr
    (replaced,) = json.loads(
        run("assign", "red fox", "--model", "mini", "--prompt", "a red fox", "--again", "--json").stdout
    )
    assert (replaced["hard_prompt"], replaced["model"], replaced["revision"]) == ("a red fox", "mini", 3)
    assert replaced["similarity"] < 0.99
    assert [entry["name"] for entry in json.loads(run("list", "a red fox", "--json").stdout)] == ["red fox"]
    (replaced_again,) = json.loads(run("assign", "red fox", "--prompt", "a boat", "--again", "--json").stdout)
    assert replaced_again["similarity"] not in (None, replaced["similarity"])
    result = run("assign", "red fox")
    assert (result.returncode, "Give --model NAME, --prompt TEXT, or both" in result.stderr) == (2, True)
    jobs: list[Job] = []
    monkeypatch.setattr(sys.modules["softprompt_tui.cli.commands.port"], "train_here", lambda job, *_: jobs.append(job))
    assert run("port", "red fox", "--model", "mini").returncode == 0
    assert (jobs[0].prompt, jobs[0].config.tokens, jobs[0].ancestry[0].name) == ("a boat", 2, "red fox")


def test_import_with_a_model_assigns_it_and_prints_the_entry_as_json(embedding_file: Path, run: Run) -> None:
    (entry,) = json.loads(run("import", str(embedding_file), "--model", "mini", "--name", "Fox", "--json").stdout)
    assert (entry["name"], entry["model"], entry["state"], entry["tokens"], entry["width"]) == (
        "Fox",
        "mini",
        "added",
        2,
        256,
    )
    assert (entry["unknown"], entry["candidates"]) == (["hard prompt", "similarity"], [])
    assert len(entry["readout"]) == 2
    assert entry["source"]["step"] == "300"
    assert Path(entry["path"]).is_file()


def test_import_and_assign_refuse_a_model_of_another_width(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "wide.npy"
    np.save(path, np.zeros((2, 768), np.float32))
    result = run("import", str(path), "--model", "mini")
    assert (result.returncode, result.stdout) == (2, "")
    assert "width 768, but mini has width 256" in result.stderr
    run("import", str(path))
    result = run("assign", "wide", "--model", "mini")
    assert (result.returncode, result.stdout) == (2, "")
    assert "width 768, but mini has width 256" in result.stderr


def test_a_refused_file_exits_with_2_and_nothing_is_saved_without_keep_going(
    embedding_file: Path, tmp_path: Path, run: Run
) -> None:
    bad = tmp_path / "bad\x1b[31m.pt"
    bad.write_bytes(b"\x80\x04cos\nsystem\n.")
    result = run("import", str(bad))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "bad␛[31m.pt: it is a Python pickle" in result.stderr
    result = run("import", str(embedding_file), str(bad))
    assert (result.returncode, result.stdout) == (2, "")
    assert "nothing was saved: 1 of 2 files were rejected" in result.stderr
    assert json.loads(run("list", "--json").stdout) == []
    result = run("import", str(embedding_file), str(bad), "--keep-going", "--json")
    assert result.returncode == 2
    assert [entry["name"] for entry in json.loads(result.stdout)] == ["red fox"]


def test_many_imported_files_are_printed_as_a_table(tmp_path: Path, run: Run) -> None:
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[-1], np.full((1, 8), i, np.float32))
    result = run("import", *map(str, paths), "--name", "many")
    assert result.stdout.splitlines()[0].split() == ["name", "tokens", "width", "model", "file"]
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ["many", *(f"many-{i}" for i in range(2, 7))]
    assert result.stderr.count("was taken") == 5


def test_list_show_diff_and_readout_accept_unknown_fields(embedding_file: Path, tmp_path: Path, run: Run) -> None:
    other_file = tmp_path / "other.npy"
    np.save(other_file, np.ones((2, 256), np.float32))
    run("import", str(embedding_file), str(other_file))
    table = run("list").stdout
    assert "unknown" in table.splitlines()[1]
    assert {entry["similarity"] for entry in json.loads(run("list", "--json", "--sort", "similarity").stdout)} == {None}
    assert "hard prompt  unknown" in run("show", "other").stdout
    assert json.loads(run("show", "other", "--json").stdout)["losses"] == []
    result = run("diff", "red fox", "other")
    assert result.returncode == 0
    assert "an unknown model and an unknown model" in result.stdout
    result = run("readout", "other")
    assert (result.returncode, result.stdout) == (2, "")
    assert "`softprompt-tui assign 'other' --model MODEL`" in result.stderr
    run("assign", "other", "--model", "mini")
    run("assign", "red fox", "--model", "mini")
    difference = json.loads(run("diff", "red fox", "other", "--json").stdout)
    assert difference["hard_prompts"] is None
    assert difference["similarity"] is not None


@pytest.mark.usefixtures("run")
def test_candidates_are_the_models_of_that_width_and_the_usual_model_is_first() -> None:
    assert "mini" in find_candidate_models(256)
    assert find_candidate_models(768)[0] == "ViT-L-14-quickgelu/openai"
    assert len(find_candidate_models(768)) > 10
    assert find_candidate_models(12_345) == []


def test_finding_candidates_does_not_load_open_clips_list_of_models() -> None:
    assert (find_candidate_models(256), find_candidate_models(1024), find_candidate_models(12_345)) == (
        ["mini"],
        ["ViT-H-14/laion2b_s32b_b79k"],
        [],
    )


@pytest.mark.usefixtures("runtime")
def test_the_interface_accepts_unknown_fields() -> None:
    async def scene(d: Session) -> None:
        empty = np.empty(0, np.float32)
        unknown = a_prompt(
            name="stranger",
            hard_prompt="",
            model="",
            model_fingerprint="",
            target=empty,
            losses=empty,
            similarities=empty,
            similarity=None,
            composition=None,
            loss=None,
            steps=0,
            readout=(),
            readout_text="",
            readout_similarity=None,
            config={},
            device="",
            source={"file": "x.pt", "model": "a lie"},
        )
        for i in range(2):
            d.app.library.save(unknown.named(f"stranger-{i}"))
        d.app.post(LibraryChanged())
        await d.shows("stranger-0", "stranger-1")
        await d.pilot.press("f4")
        await d.pilot.press("i")
        await d.shows("hard prompt unknown", "file says", "model a lie")
        await d.until(lambda: isinstance(d.app.screen, TextScreen | EntryDetailsScreen))
        await d.pilot.press("escape")
        await d.until(lambda: not isinstance(d.app.screen, TextScreen | EntryDetailsScreen))
        await d.pilot.press("n")
        await d.until(lambda: any("cannot be varied" in notification.message for notification in d.app._notifications))
        await d.pilot.press("space", "down", "space", "c")
        await d.shows("or are unknown")

    run_scene(scene, 100, 40)


def test_assign_takes_several_names_loads_the_model_once_and_reports_each_refusal(
    embedding_file: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, width in enumerate((256, 768)):
        np.save(tmp_path / f"n{i}.npy", np.ones((2, width), np.float32))
    run("import", str(embedding_file), str(tmp_path / "n0.npy"), str(tmp_path / "n1.npy"))
    loads, load_model = [], loading.load_model
    monkeypatch.setattr(loading, "load_model", lambda *args: loads.append(args) or load_model(*args))
    result = run("assign", "red fox", "n1", "none", "n0", "--model", "mini", "--json")
    assert (result.returncode, len(loads)) == (2, 1)
    assert [(entry["name"], entry["model"]) for entry in json.loads(result.stdout)] == [
        ("red fox", "mini"),
        ("n0", "mini"),
    ]
    assert "width 768, but mini has width 256" in result.stderr
    assert "no soft prompt is named 'none'" in result.stderr
    second = run("assign", "red fox", "--model", "mini")
    assert "--again" in second.stderr
    (entry,) = json.loads(run("assign", "red fox", "--model", "mini", "--again", "--json").stdout)
    assert entry["model"] == "mini"


def test_control_characters_in_a_label_never_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("\x1b[31mred", "text")
    assert capsys.readouterr().out.startswith("␛[31mred")
