"""The library's commands: output, changes and exit codes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import softprompt
from softprompt import Library
from softprompt.encoders.clip.text_encoder import TextEncoder
from tests.conftest import BOAT, FOX
from tests.library_model import a_prompt

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def filled_library(run: Run) -> Library:
    library = Library()
    library.save(a_prompt(name="fox", hard_prompt="a red fox in snow", similarity=0.95))
    library.save(a_prompt(name="lake", hard_prompt="a lake at sunrise \x1b[31m", similarity=0.99))
    return library


def test_list_filters_sorts_limits_and_says_how_many_more_match(filled_library: Library, run: Run) -> None:
    run("tag", "fox", "red", "style:photo")
    assert [row.split()[0] for row in run("list", "--sort", "similarity").stdout.splitlines()] == [
        "name",
        "lake",
        "fox",
    ]
    assert [row.split()[0] for row in run("list", "sunr").stdout.splitlines()] == ["name", "lake"]
    assert "red style:photo" in run("list", "--tag", "RED").stdout
    assert run("list", "--tag", "blue").stderr == "No soft prompt matches. `softprompt-tui list` shows all\n"
    limited = run("list", "--limit", "1")
    assert len(limited.stdout.splitlines()) == 2
    assert limited.stderr == "1 more. --all shows them; words and --tag narrow the list.\n"
    entries = json.loads(run("list", "--json", "--sort", "name", "--reverse").stdout)
    assert [(entry["name"], entry["tags"], entry["revision"]) for entry in entries] == [
        ("lake", [], 1),
        ("fox", ["red", "style:photo"], 2),
    ]
    assert run("list", "--sort", "size").returncode == 2


def test_list_prints_100_entries_or_all_with_all_or_json(run: Run) -> None:
    library = Library()
    for i in range(103):
        library.save(a_prompt(name=f"n{i}"))
    assert len(run("list").stdout.splitlines()) == 101
    assert run("list").stderr.startswith("3 more")
    assert len(run("list", "--all").stdout.splitlines()) == 104
    assert len(json.loads(run("list", "--json").stdout)) == 103


def test_rename_tag_note_and_duplicate_change_entries(filled_library: Library, run: Run) -> None:
    assert run("rename", "fox", "Rotfuchs").stderr == "fox is now Rotfuchs\n"
    assert run("tag", "rotfuchs", "red", "dusk").stderr == "Rotfuchs: dusk  red\n"
    assert run("tag", "rotfuchs", "--remove", "red").stderr == "Rotfuchs: dusk\n"
    assert run("tag", "rotfuchs").stdout == "dusk\n"
    assert run("note", "rotfuchs", "too dark\x1b[2J").stderr == "Rotfuchs: note saved\n"
    details = run("show", "rotfuchs").stdout
    assert "note         too dark␛[2J" in details
    assert "tags         dusk" in details
    assert json.loads(run("note", "rotfuchs", "--clear", "--json").stdout)["note"] == ""
    assert run("note", "rotfuchs").returncode == 2
    assert run("rename", "lake", "ROTFUCHS").returncode == 2
    assert run("rename", "nothing", "x").stderr.startswith("softprompt-tui: no soft prompt is named 'nothing'")
    assert run("duplicate", "lake").stderr.startswith("saved lake-2 with id ")


def test_the_trash_is_listed_restored_and_purged(filled_library: Library, run: Run) -> None:
    fox = filled_library.find("fox").id
    assert run("rm", "fox").stderr == f"fox is in the trash. To restore it, run `softprompt-tui restore {fox[:8]}`.\n"
    assert [entry["name"] for entry in json.loads(run("list", "--trash", "--json").stdout)] == ["fox"]
    assert "deleted" in run("list", "--trash").stdout
    assert "is in the trash" in run("show", "fox").stderr
    assert run("restore", fox[:8]).stderr == "restored fox\n"
    result = run("rm", "fox", "nothing", "lake")
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 3)
    assert run("purge").returncode == 2
    result = run("purge", "fox")
    assert result.returncode == 2
    assert "standard input is not a terminal. Pass --yes to confirm." in result.stderr
    assert run("purge", "fox", "--yes").returncode == 0
    assert run("purge", "--all", "-y").stderr == "deleted 1 for good\n"
    assert run("purge", "--all", "-y").stderr == run("list", "--trash").stderr == "The trash is empty.\n"
    assert run("restore", "fox").returncode == 2


def test_check_names_damaged_and_foreign_files_and_exits_with_1(filled_library: Library, run: Run, home: Path) -> None:
    assert run("library", "check").stdout.endswith("no damage\n")
    fox = filled_library.find("fox")
    raw = bytearray(fox.path.read_bytes())
    raw[-1] ^= 1
    fox.path.write_bytes(raw)
    (filled_library.entries / "stray.txt").write_text("")
    result = run("library", "check")
    assert result.returncode == 1
    assert f"{fox.path} is damaged" in result.stderr
    assert "stray.txt is not part of the library" in result.stderr
    document = json.loads(run("library", "check", "--json").stdout)
    assert (document["files"], len(document["damaged"]), document["strangers"]) == (2, 1, ["stray.txt"])
    assert run("show", "fox").returncode == 1
    assert run("show", "lake").returncode == 0


def test_a_backup_restores_purged_entries(filled_library: Library, run: Run, tmp_path: Path) -> None:
    backup = str(tmp_path / "b.zip")
    assert run("library", "backup", backup).stdout == f"2 files in {backup}, all verified\n"
    assert run("library", "backup", backup).returncode == 2
    run("rm", "fox", "lake")
    run("purge", "--all", "--yes")
    assert run("library", "restore-backup", backup).stdout == "2 files added; 0 were already here\n"
    assert run("restore", "fox", "lake").returncode == 0
    assert json.loads(run("library", "restore-backup", backup, "--json").stdout) == {
        "added": 0,
        "present": 2,
        "beside": [],
    }
    assert run("library", "restore-backup", str(tmp_path)).returncode == 2
    assert run("library", "rebuild").stdout.startswith("2 entries in ")


def test_diff_compares_settings_meaning_and_tokens(run: Run, encoder: TextEncoder) -> None:
    library = Library()
    library.save(softprompt.train(encoder, FOX, tokens=2, steps=20).named("fox"))
    library.save(softprompt.train(encoder, BOAT, tokens=1, steps=20).named("boat"))
    difference = json.loads(run("diff", "fox", "boat", "--json").stdout)
    assert difference["differs"]["hard_prompt"] == [FOX, BOAT]
    assert difference["differs"]["config: tokens"] == [2, 1]
    text_similarity = json.loads(run("compare", FOX, BOAT, "--json").stdout)["similarities"][0][1]
    assert difference["hard_prompts"] == pytest.approx(text_similarity, abs=1e-4)
    assert 0 < difference["similarity"] < 0.9
    assert [len(row) for row in difference["cosines"]] == [1, 1]
    printed = run("diff", "fox", "boat").stdout
    for text in ("differs in", "between the soft prompts", "nearest in second", "[v2]", "⢕⢕ second"):
        assert text in printed
    same = json.loads(run("diff", "fox", "fox", "--json").stdout)
    assert same["differs"] == {}
    assert same["similarity"] == pytest.approx(1, abs=1e-5)


def test_diff_without_the_model_notes_it_and_prints_the_rest(run: Run) -> None:
    library = Library()
    library.save(a_prompt(name="a", model="ViT-B-32/nowhere"))
    library.save(a_prompt(name="b", model="ViT-B-32/nowhere", steps=9))
    result = run("diff", "a", "b")
    assert result.returncode == 0
    assert "note: cannot measure the similarity:" in result.stderr
    assert "between their hard prompts" in result.stdout
