"""`import` and `assign`, and that every command can live with what an imported soft prompt does not know."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import softprompt
from softprompt.formats.importer import find_candidate_models
from softprompt.jobs.job import Job
from softprompt_tui.cli.report import print_line
from softprompt_tui.messages import LibraryChanged
from softprompt_tui.screens.text_viewer import TextScreen
from tests.app_harness import Session, run_scene, runtime  # noqa: F401  # runtime is a fixture
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def card(tmp_path: Path) -> Path:
    """An embedding of mini's width, with words of its own."""
    path = tmp_path / "fox.safetensors"
    vectors = np.random.default_rng(0).standard_normal((2, 256), dtype=np.float32)
    path.write_bytes(save({"emb_params": vectors}, {"name": "red fox", "step": "300", "description": "\x1b[31mred"}))
    return path


def test_import_says_what_was_read_what_is_unknown_and_how_to_assign_a_model(card: Path, run: Run, home: Path) -> None:
    done = run("import", str(card), "--tag", "animal", COLUMNS="80")
    lines = {line[:12].strip(): line[13:] for line in done.stdout.splitlines()}
    assert (done.returncode, done.stderr) == (0, "")
    assert lines["name"] == "red fox"
    assert lines["soft tokens"] == "2 of width 256, on an unknown model"
    assert lines["format"] == "emb_params (AUTOMATIC1111, ComfyUI, kohya), safetensors"
    assert lines["file says"] == "description ␛[31mred; name red fox; step 300"
    assert lines["unknown"] == "hard prompt, model, similarity"
    assert lines["candidates"] == "mini"
    assert lines["set model"] == "softprompt-tui assign 'red fox' --model mini"
    assert Path(lines["saved"].split("  ")[0]).is_file()
    again = run("import", str(card))
    assert "already in the library; nothing was added" in again.stdout
    run("rm", "red fox")
    trashed = run("import", str(card))
    assert "in the trash and stays there; `softprompt-tui restore" in trashed.stdout


def test_assign_makes_it_usable_once(card: Path, run: Run) -> None:
    run("import", str(card))
    done = run("assign", "red fox", "--model", "mini")
    assert done.returncode == 0
    assert "2 on mini" in done.stdout
    assert "alternatives" in done.stdout
    assert json.loads(run("readout", "red fox", "--json").stdout)["readout_similarity"] is None
    again = run("assign", "red fox", "--model", "mini")
    assert (again.returncode, again.stdout) == (2, "")
    assert "red fox belongs to mini" in again.stderr


def test_an_imported_one_is_told_its_hard_prompt_and_ported(
    card: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = run("import", str(card))
    assert "set prompt   softprompt-tui assign 'red fox' --prompt TEXT" in imported.stdout
    unknown = run("port", "red fox", "--model", "mini")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "`softprompt-tui assign 'red fox' --prompt TEXT`" in unknown.stderr
    told = run("assign", "red fox", "--prompt", "a red fox in snow")
    assert told.returncode == 0
    assert "hard prompt  a red fox in snow" in told.stdout
    assert "similarity   unknown" in told.stdout
    again = run("assign", "red fox", "--prompt", "a boat")
    assert (again.returncode, again.stdout) == (2, "")
    assert "Use --again to replace a wrong one" in again.stderr
    (both,) = json.loads(
        run("assign", "red fox", "--model", "mini", "--prompt", "a red fox", "--again", "--json").stdout
    )
    assert (both["hard_prompt"], both["model"], both["revision"]) == ("a red fox", "mini", 3)
    assert both["similarity"] < 0.99
    assert [one["name"] for one in json.loads(run("list", "a red fox", "--json").stdout)] == ["red fox"]
    (other,) = json.loads(run("assign", "red fox", "--prompt", "a boat", "--again", "--json").stdout)
    assert other["similarity"] not in (None, both["similarity"])
    nothing = run("assign", "red fox")
    assert (nothing.returncode, "Give --model NAME, --prompt TEXT, or both" in nothing.stderr) == (2, True)
    jobs: list[Job] = []
    monkeypatch.setattr(sys.modules["softprompt_tui.cli.commands.port"], "train_here", lambda job, *_: jobs.append(job))
    assert run("port", "red fox", "--model", "mini").returncode == 0
    assert (jobs[0].prompt, jobs[0].config.tokens, jobs[0].ancestry[0].name) == ("a boat", 2, "red fox")


def test_with_a_model_it_is_assigned_at_once_and_json_has_it_all(card: Path, run: Run) -> None:
    (one,) = json.loads(run("import", str(card), "--model", "mini", "--name", "Fox", "--json").stdout)
    assert (one["name"], one["model"], one["state"], one["tokens"], one["width"]) == ("Fox", "mini", "added", 2, 256)
    assert (one["unknown"], one["candidates"]) == (["hard prompt", "similarity"], [])
    assert len(one["readout"]) == 2
    assert one["source"]["step"] == "300"
    assert Path(one["path"]).is_file()


def test_another_width_is_refused_by_both_commands(tmp_path: Path, run: Run) -> None:
    path = tmp_path / "wide.npy"
    np.save(path, np.zeros((2, 768), np.float32))
    done = run("import", str(path), "--model", "mini")
    assert (done.returncode, done.stdout) == (2, "")
    assert "width 768, but mini has width 256" in done.stderr
    run("import", str(path))
    done = run("assign", "wide", "--model", "mini")
    assert (done.returncode, done.stdout) == (2, "")
    assert "width 768, but mini has width 256" in done.stderr


def test_a_refused_file_ends_with_2_and_one_line_and_saves_nothing_unless_told_to_go_on(
    card: Path, tmp_path: Path, run: Run
) -> None:
    bad = tmp_path / "bad\x1b[31m.pt"
    bad.write_bytes(b"\x80\x04cos\nsystem\n.")
    alone = run("import", str(bad))
    assert (alone.returncode, alone.stdout, alone.stderr.count("\n")) == (2, "", 1)
    assert "bad␛[31m.pt: it is a Python pickle" in alone.stderr
    both = run("import", str(card), str(bad))
    assert (both.returncode, both.stdout) == (2, "")
    assert "nothing was saved: 1 of 2 files were rejected" in both.stderr
    assert json.loads(run("list", "--json").stdout) == []
    going_on = run("import", str(card), str(bad), "--keep-going", "--json")
    assert going_on.returncode == 2
    assert [one["name"] for one in json.loads(going_on.stdout)] == ["red fox"]


def test_many_are_shown_as_a_table(tmp_path: Path, run: Run) -> None:
    paths = []
    for i in range(6):
        paths.append(tmp_path / f"{i}.npy")
        np.save(paths[-1], np.full((1, 8), i, np.float32))
    done = run("import", *map(str, paths), "--name", "many")
    assert done.stdout.splitlines()[0].split() == ["name", "tokens", "width", "model", "file"]
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["many", *(f"many-{i}" for i in range(2, 7))]
    assert done.stderr.count("was taken") == 5


def test_list_show_diff_and_readout_live_with_what_is_unknown(card: Path, tmp_path: Path, run: Run) -> None:
    other = tmp_path / "other.npy"
    np.save(other, np.ones((2, 256), np.float32))
    run("import", str(card), str(other))
    listed = run("list").stdout
    assert "unknown" in listed.splitlines()[1]
    assert {one["similarity"] for one in json.loads(run("list", "--json", "--sort", "similarity").stdout)} == {None}
    assert "hard prompt  unknown" in run("show", "other").stdout
    assert json.loads(run("show", "other", "--json").stdout)["losses"] == []
    differs = run("diff", "red fox", "other")
    assert differs.returncode == 0
    assert "an unknown model and an unknown model" in differs.stdout
    read = run("readout", "other")
    assert (read.returncode, read.stdout) == (2, "")
    assert "`softprompt-tui assign 'other' --model MODEL`" in read.stderr
    run("assign", "other", "--model", "mini")
    run("assign", "red fox", "--model", "mini")
    both = json.loads(run("diff", "red fox", "other", "--json").stdout)
    assert both["hard_prompts"] is None
    assert both["similarity"] is not None


@pytest.mark.usefixtures("run")
def test_candidates_are_the_models_of_that_width_the_usual_one_first() -> None:
    assert "mini" in find_candidate_models(256)
    assert find_candidate_models(768)[0] == "ViT-L-14-quickgelu/openai"
    assert len(find_candidate_models(768)) > 10
    assert find_candidate_models(12_345) == []


def test_open_clips_list_is_not_read_for_the_candidates_alone() -> None:
    assert (find_candidate_models(256), find_candidate_models(1024), find_candidate_models(12_345)) == (
        ["mini"],
        ["ViT-H-14/laion2b_s32b_b79k"],
        [],
    )


@pytest.mark.usefixtures("runtime")
def test_the_panes_live_with_what_is_unknown() -> None:
    async def scene(d: Session) -> None:
        nothing = np.empty(0, np.float32)
        unknown = a_prompt(
            name="stranger", hard_prompt="", model="", model_fingerprint="", target=nothing, losses=nothing, similarities=nothing, similarity=None,
            composition=None, loss=None, steps=0, readout=(), readout_text="", readout_similarity=None, config={}, device="",
            source={"file": "x.pt", "model": "a lie"},
        )  # fmt: skip
        for i in range(2):
            d.app.library.save(unknown.named(f"stranger-{i}"))
        d.app.post(LibraryChanged())
        await d.shows("stranger-0", "stranger-1")
        await d.pilot.press("f4")
        await d.pilot.press("i")
        await d.shows("hard prompt unknown", "file says", "model a lie")
        await d.until(lambda: isinstance(d.app.screen, TextScreen))
        await d.pilot.press("escape")
        await d.until(lambda: not isinstance(d.app.screen, TextScreen))
        await d.pilot.press("n")
        await d.until(lambda: any("cannot be varied" in one.message for one in d.app._notifications))
        await d.pilot.press("space", "down", "space", "c")
        await d.shows("or are unknown")

    run_scene(scene, 100, 40)


def test_assign_takes_several_loads_once_and_says_which_are_refused(
    card: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, width in enumerate((256, 768)):
        np.save(tmp_path / f"n{i}.npy", np.ones((2, width), np.float32))
    run("import", str(card), str(tmp_path / "n0.npy"), str(tmp_path / "n1.npy"))
    loads, real = [], softprompt.load_encoder
    monkeypatch.setattr(softprompt, "load_encoder", lambda *args: loads.append(args) or real(*args))
    done = run("assign", "red fox", "n1", "none", "n0", "--model", "mini", "--json")
    assert (done.returncode, len(loads)) == (2, 1)
    assert [(one["name"], one["model"]) for one in json.loads(done.stdout)] == [("red fox", "mini"), ("n0", "mini")]
    assert "width 768, but mini has width 256" in done.stderr
    assert "no soft prompt is named 'none'" in done.stderr
    again = run("assign", "red fox", "--model", "mini")
    assert "--again" in again.stderr
    (one,) = json.loads(run("assign", "red fox", "--model", "mini", "--again", "--json").stdout)
    assert one["model"] == "mini"


def test_labels_from_a_file_are_inert(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("\x1b[31mred", "text")
    assert capsys.readouterr().out.startswith("␛[31mred")
