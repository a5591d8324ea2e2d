"""The library's commands: what they print, what they change, how they end."""

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
def filled(run: Run) -> Library:
    library = Library()
    library.save(a_prompt(name="fox", hard_prompt="a red fox in snow", similarity=0.95))
    library.save(a_prompt(name="lake", hard_prompt="a lake at sunrise \x1b[31m", similarity=0.99))
    return library


def test_list_filters_sorts_and_says_how_many_more_there_are(filled: Library, run: Run) -> None:
    run("tag", "fox", "red", "style:photo")
    assert [row.split()[0] for row in run("list", "--sort", "similarity").stdout.splitlines()] == [
        "name",
        "lake",
        "fox",
    ]
    assert [row.split()[0] for row in run("list", "sunr").stdout.splitlines()] == ["name", "lake"]
    assert "red style:photo" in run("list", "--tag", "RED").stdout
    assert run("list", "--tag", "blue").stderr == "No soft prompt matches. `softprompt-tui list` shows all\n"
    one = run("list", "--limit", "1")
    assert len(one.stdout.splitlines()) == 2
    assert one.stderr == "1 more. --all shows them; words and --tag narrow the list.\n"
    listed = json.loads(run("list", "--json", "--sort", "name", "--reverse").stdout)
    assert [(found["name"], found["tags"], found["revision"]) for found in listed] == [
        ("lake", [], 1),
        ("fox", ["red", "style:photo"], 2),
    ]
    assert run("list", "--sort", "size").returncode == 2


def test_a_table_shows_a_hundred_and_all_when_asked(run: Run) -> None:
    library = Library()
    for i in range(103):
        library.save(a_prompt(name=f"n{i}"))
    assert len(run("list").stdout.splitlines()) == 101
    assert run("list").stderr.startswith("3 more")
    assert len(run("list", "--all").stdout.splitlines()) == 104
    assert len(json.loads(run("list", "--json").stdout)) == 103


def test_names_tags_and_notes_are_changed(filled: Library, run: Run) -> None:
    assert run("rename", "fox", "Rotfuchs").stderr == "fox is now Rotfuchs\n"
    assert run("tag", "rotfuchs", "red", "dusk").stderr == "Rotfuchs: dusk  red\n"
    assert run("tag", "rotfuchs", "--remove", "red").stderr == "Rotfuchs: dusk\n"
    assert run("tag", "rotfuchs").stdout == "dusk\n"
    assert run("note", "rotfuchs", "too dark\x1b[2J").stderr == "Rotfuchs: note saved\n"
    shown = run("show", "rotfuchs").stdout
    assert "note         too dark␛[2J" in shown
    assert "tags         dusk" in shown
    assert json.loads(run("note", "rotfuchs", "--clear", "--json").stdout)["note"] == ""
    assert run("note", "rotfuchs").returncode == 2
    assert run("rename", "lake", "ROTFUCHS").returncode == 2
    assert run("rename", "nothing", "x").stderr.startswith("softprompt-tui: no soft prompt is named 'nothing'")
    assert run("duplicate", "lake").stderr.startswith("saved lake-2 with id ")


def test_the_trash_is_listed_restored_and_purged(filled: Library, run: Run) -> None:
    fox = filled.find("fox").id
    assert run("rm", "fox").stderr == f"fox is in the trash. `softprompt-tui restore {fox[:8]}` restores it\n"
    assert [one["name"] for one in json.loads(run("list", "--trash", "--json").stdout)] == ["fox"]
    assert "deleted" in run("list", "--trash").stdout
    assert "is in the trash" in run("show", "fox").stderr
    assert run("restore", fox[:8]).stderr == "restored fox\n"
    both = run("rm", "fox", "nothing", "lake")
    assert (both.returncode, len(both.stderr.splitlines())) == (2, 3)
    assert run("purge").returncode == 2
    asked = run("purge", "fox")
    assert asked.returncode == 2
    assert "standard input is not a terminal. Give --yes." in asked.stderr
    assert run("purge", "fox", "--yes").returncode == 0
    assert run("purge", "--all", "-y").stderr == "deleted 1 for good\n"
    assert run("purge", "--all", "-y").stderr == run("list", "--trash").stderr == "The trash is empty.\n"
    assert run("restore", "fox").returncode == 2


def test_check_names_what_is_damaged_and_its_exit_code_tells(filled: Library, run: Run, home: Path) -> None:
    assert run("library", "check").stdout.endswith("no damage\n")
    fox = filled.find("fox")
    raw = bytearray(fox.path.read_bytes())
    raw[-1] ^= 1
    fox.path.write_bytes(raw)
    (filled.entries / "stray.txt").write_text("")
    done = run("library", "check")
    assert done.returncode == 1
    assert f"{fox.path} is damaged" in done.stderr
    assert "stray.txt does not belong to the library" in done.stderr
    told = json.loads(run("library", "check", "--json").stdout)
    assert (told["files"], len(told["damaged"]), told["strangers"]) == (2, 1, ["stray.txt"])
    assert run("show", "fox").returncode == 1
    assert run("show", "lake").returncode == 0


def test_backup_and_restore(filled: Library, run: Run, tmp_path: Path) -> None:
    file = str(tmp_path / "b.zip")
    assert run("library", "backup", file).stdout == f"2 files in {file}, all verified\n"
    assert run("library", "backup", file).returncode == 2
    run("rm", "fox", "lake")
    run("purge", "--all", "--yes")
    assert run("library", "restore-backup", file).stdout == "2 files added; 0 were already here\n"
    assert run("restore", "fox", "lake").returncode == 0
    assert json.loads(run("library", "restore-backup", file, "--json").stdout) == {
        "added": 0,
        "present": 2,
        "beside": [],
    }
    assert run("library", "restore-backup", str(tmp_path)).returncode == 2
    assert run("library", "rebuild").stdout.startswith("2 entries in ")


def test_diff_compares_making_meaning_and_tokens(run: Run, encoder: TextEncoder) -> None:
    library = Library()
    library.save(softprompt.train(encoder, FOX, tokens=2, steps=20).named("fox"))
    library.save(softprompt.train(encoder, BOAT, tokens=1, steps=20).named("boat"))
    told = json.loads(run("diff", "fox", "boat", "--json").stdout)
    assert told["differs"]["hard_prompt"] == [FOX, BOAT]
    assert told["differs"]["config: tokens"] == [2, 1]
    texts = json.loads(run("compare", FOX, BOAT, "--json").stdout)["similarities"][0][1]
    assert told["hard_prompts"] == pytest.approx(texts, abs=1e-4)
    assert 0 < told["similarity"] < 0.9
    assert [len(row) for row in told["cosines"]] == [1, 1]
    shown = run("diff", "fox", "boat").stdout
    for part in ("differs in", "between the soft prompts", "nearest in second", "[v2]", "⢕⢕ second"):
        assert part in shown
    same = json.loads(run("diff", "fox", "fox", "--json").stdout)
    assert same["differs"] == {}
    assert same["similarity"] == pytest.approx(1, abs=1e-5)


def test_diff_without_the_model_says_so_and_shows_the_rest(run: Run) -> None:
    library = Library()
    library.save(a_prompt(name="a", model="ViT-B-32/nowhere"))
    library.save(a_prompt(name="b", model="ViT-B-32/nowhere", steps=9))
    done = run("diff", "a", "b")
    assert done.returncode == 0
    assert "note: cannot measure the similarity:" in done.stderr
    assert "between their hard prompts" in done.stdout
