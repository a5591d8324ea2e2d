"""Changing what is saved: revisions and conflicts, the trash, duplicates, backups, differences."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softprompt import Library
from softprompt.errors import (
    ArchiveError,
    BadName,
    EntryDamaged,
    EntryNotFound,
    EntryRefused,
    LibraryError,
    SoftPromptError,
)
from softprompt.library.diff import difference
from softprompt.library.entry import Entry, pack
from softprompt.prompts.results import ContextFidelity, ContextScore
from softprompt.prompts.serialization import to_dict
from tests.library_model import a_prompt, found_in


@pytest.fixture
def library() -> Library:
    made = Library()
    made.save(a_prompt(name="fox"))
    return made


def test_an_edit_is_a_new_revision_and_keeps_all_else(library: Library) -> None:
    first = library.open("fox")
    library.rename("fox", "Rotfuchs")
    library.tag("rotfuchs", ["b", "A"])
    edited = library.annotate("rotfuchs", "good at night")
    assert (edited.id, edited.revision, edited.tags, edited.note) == (first.id, 4, ("A", "b"), "good at night")
    assert edited.changed
    again = library.open("Rotfuchs")
    assert to_dict(again.prompt) == to_dict(first.prompt.named("Rotfuchs"))
    assert again.prompt.vectors.tobytes() == first.prompt.vectors.tobytes()
    assert library.tag("rotfuchs", remove=["a", "x"]).tags == ("b",)
    assert library.annotate("rotfuchs", "").note == ""


def test_a_change_that_changes_nothing_makes_no_revision(library: Library) -> None:
    assert library.rename("fox", "fox").revision == 1
    assert library.tag("fox", remove=["none"]).revision == 1
    assert library.rename("fox", "FOX").revision == 2


def test_a_taken_name_is_refused(library: Library) -> None:
    library.save(a_prompt(name="lake"))
    with pytest.raises(BadName, match="named FOX already"):
        library.rename("lake", "FOX")
    with pytest.raises(BadName, match="reserved"):
        library.rename("lake", "v1")


def test_two_changes_at_once_are_both_made(library: Library) -> None:
    """Another process adds a tag between this one's reading and writing."""
    write = library.revisions.write
    calls = []

    def late(entry: object) -> None:
        if not calls:
            calls.append(entry)
            Library().tag("fox", ["theirs"])
        write(entry)  # type: ignore[arg-type]

    library.revisions.write = late  # type: ignore[method-assign]
    assert library.tag("fox", ["mine"]).tags == ("mine", "theirs")


def test_a_conflict_keeps_both_under_one_name_told_apart_by_id(library: Library) -> None:
    seen = library.open("fox")
    library.annotate("fox", "theirs")
    kept = library.annotate("fox", "mine", revision=seen.revision)
    assert kept.id != seen.id
    assert (kept.prompt.name, kept.note) == ("fox", "mine")
    assert library.open(seen.id).note == "theirs"
    with pytest.raises(EntryNotFound, match="is the name of several") as caught:
        library.open("fox")
    assert seen.id in str(caught.value)
    assert kept.id in str(caught.value)
    assert library.annotate(seen.id, "mine", revision=2).id == seen.id
    with pytest.raises(EntryNotFound, match="has no revision 9"):
        library.annotate(seen.id, "mine", revision=9)


def test_the_trash_gives_back_or_forgets(library: Library) -> None:
    fox = library.open("fox")
    library.tag("fox", ["red"])
    library.delete("fox")
    assert library.list().entries == []
    library.save(a_prompt(name="fox"))
    restored = library.restore(fox.id)
    assert (restored.prompt.name, restored.tags, restored.revision) == ("fox-2", ("red",), 4)
    with pytest.raises(EntryNotFound, match="no soft prompt in the trash"):
        library.restore("fox-2")
    with pytest.raises(EntryNotFound, match="no soft prompt in the trash"):
        library.purge("fox-2")  # what is not in the trash is not removed
    library.delete("fox-2")
    library.delete("fox")
    assert library.purge("fox-2") == 1
    assert library.purge() == 1
    assert library.purge() == 0
    assert library.list(trashed=True).total == 0
    with pytest.raises(EntryNotFound):
        library.restore(fox.id)
    assert len(list(library.entries.iterdir())) == 2  # the tombstones


def test_only_a_whole_tombstone_lets_go_what_is_below_it(library: Library) -> None:
    entry = library.open("fox")
    library.delete("fox")
    assert [listed.id for listed in library.list(trashed=True).entries] == [entry.id]
    with library.path(entry.id, 2).open("r+b") as file:  # the index does not notice
        file.write(b"damaged")
    assert library.purge() == 0
    assert library.path(entry.id, 1).exists()


def test_old_files_of_other_programs_in_the_folder_are_not_swept(library: Library) -> None:
    names = ["x.1.safetensors.a1b2c3d4.partial", ".fox.partial", "0123456789abcdef.partial"]
    for name in (*names, ".0123456789abcdef.partial"):
        (library.entries / name).write_text("mine")
        os.utime(library.entries / name, (0, 0))
    library.list()
    assert sorted(path.name for path in library.entries.iterdir() if path.name.endswith(".partial")) == sorted(names)


def test_nothing_late_brings_back_what_was_purged(library: Library) -> None:
    fox = library.find("fox")
    library.delete("fox")
    library.purge("fox")
    with pytest.raises(EntryNotFound, match="deleted meanwhile"):
        library._change(fox, lambda entry: entry, None)


def test_saving_under_an_id_twice_saves_once_even_from_the_trash(library: Library) -> None:
    first = library.save(a_prompt(name="run"), "ab" * 8)
    library.rename("run", "renamed")
    assert library.save(a_prompt(name="other"), "ab" * 8).prompt.name == "renamed"
    library.delete("renamed")
    assert library.save(a_prompt(), "ab" * 8).id == first.id
    assert library.list().total == 1


def test_a_duplicate_has_everything_of_the_first(library: Library) -> None:
    library.tag("fox", ["red"])
    assert library.duplicate("fox").prompt.name == "fox-2"
    twin = library.duplicate("fox", "twin")
    assert (twin.prompt.name, twin.tags, twin.revision) == ("twin", ("red",), 1)
    with pytest.raises(BadName):
        library.duplicate("fox", "twin")


def test_a_backup_brings_everything_back_on_another_machine(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.tag("fox", ["red"])
    library.save(a_prompt(name="lake"))
    library.delete("lake")
    before = found_in(library)
    done = library.back_up(tmp_path / "b.zip")
    assert (done.files, done.damaged) == (4, [])
    with pytest.raises(ArchiveError, match="there is a file of that name already"):
        library.back_up(tmp_path / "b.zip")
    monkeypatch.setenv("SOFTPROMPT_HOME", str(tmp_path / "other"))
    other = Library()
    assert other.bring_back(tmp_path / "b.zip").files == 4
    assert found_in(other) == before
    again = other.bring_back(tmp_path / "b.zip")
    assert (again.files, again.present, again.beside) == (0, 4, [])


def test_a_backup_leaves_out_and_names_what_is_damaged(library: Library, tmp_path: Path) -> None:
    bad = library.save(a_prompt(name="bad"))
    library.path(bad.id, 1).write_bytes(b"xx" * 90)
    done = library.back_up(tmp_path / "b.zip")
    assert done.files == 1
    assert bad.id in str(done.damaged[0])


def test_what_went_another_way_since_the_backup_is_kept_beside(library: Library, tmp_path: Path) -> None:
    fox = library.annotate("fox", "in the backup")
    library.back_up(tmp_path / "b.zip")
    library.path(fox.id, 2).unlink()
    library.annotate("fox", "here")
    done = library.bring_back(tmp_path / "b.zip")
    assert library.open(fox.id).note == "here"
    (beside,) = done.beside
    assert (library.open(beside).note, library.open(beside).prompt.name) == ("in the backup", "fox-2")


def test_what_was_purged_since_the_backup_comes_back_into_the_trash(library: Library, tmp_path: Path) -> None:
    library.back_up(tmp_path / "b.zip")
    library.delete("fox")
    library.purge("fox")
    library.bring_back(tmp_path / "b.zip")
    assert library.list().total == 0
    assert library.restore("fox").prompt.name == "fox"


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None], **how: int) -> Path:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    out = path.with_name("changed.zip")
    with zipfile.ZipFile(out, "w", how.get("packed", zipfile.ZIP_STORED)) as archive:
        for name, raw in parts.items():
            archive.writestr(name, raw)
    return out


def test_a_backup_that_is_not_whole_is_refused_as_a_whole(library: Library, tmp_path: Path) -> None:
    library.save(a_prompt(name="lake"))
    library.back_up(tmp_path / "b.zip")
    raw = (tmp_path / "b.zip").read_bytes()

    def without_one(parts: dict[str, bytes]) -> None:
        del parts[next(iter(parts))]

    def with_a_path(parts: dict[str, bytes]) -> None:
        parts["entries/../../evil"] = b"x"
        manifest = json.loads(parts["manifest.json"])
        manifest["entries"]["../../evil"] = "0" * 64
        parts["manifest.json"] = json.dumps(manifest).encode()

    def without_manifest(parts: dict[str, bytes]) -> None:
        del parts["manifest.json"]

    def other_bytes(parts: dict[str, bytes]) -> None:
        first, second = sorted(name for name in parts if name != "manifest.json")
        parts[first] = parts[second]

    broken = [
        rewritten(tmp_path / "b.zip", change).read_bytes()
        for change in (without_one, with_a_path, without_manifest, other_bytes)
    ]
    broken.append(rewritten(tmp_path / "b.zip", lambda _: None, packed=zipfile.ZIP_DEFLATED).read_bytes())
    broken += [
        raw[: len(raw) // 2],
        b"",
        b"no zip",
        *(raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :] for i in range(40, len(raw) // 2, 211)),
    ]
    (tmp_path / "new").mkdir()
    other = Library(tmp_path / "new")
    for content in broken:
        (tmp_path / "bad.zip").write_bytes(content)
        with pytest.raises(ArchiveError):
            other.bring_back(tmp_path / "bad.zip")
        assert not other.entries.exists()
    with pytest.raises(ArchiveError, match="No such file"):
        other.bring_back(tmp_path / "none.zip")


def test_a_difference_tells_how_they_were_made_and_token_by_token(library: Library) -> None:
    turned = np.stack([a_prompt().vectors[1], -a_prompt().vectors[0]])
    created = library.open("fox").prompt.created
    library.save(a_prompt(name="other", vectors=turned, steps=9, config={"tokens": 2, "seed": 1}, created=created))
    found = difference(library.open("fox"), library.open("other"))
    assert found.fields == {
        "name": ("fox", "other"),
        "steps": (5, 9),
        "config: seed": (None, 1),
    }
    assert found.hard_prompts == pytest.approx(float(np.clip(a_prompt().target @ a_prompt().target, -1, 1)))
    assert found.closest()[1] == (0, pytest.approx(1.0))
    foreign = library.save(a_prompt(name="foreign", model_fingerprint="other"))
    assert difference(library.open("fox"), foreign).cosines is None


def test_what_was_saved_before_there_were_tags_still_opens(library: Library) -> None:
    raw = library.path(library.find("fox").id, 1).read_bytes()
    assert b'\\"tags\\"' not in raw
    assert library.open("fox").tags == ()
    with pytest.raises(EntryDamaged):
        library.revisions.read("ff" * 8, 1) if library.path("ff" * 8, 1).write_bytes(raw) else None


def test_a_change_that_was_overtaken_by_a_purge_is_no_change(library: Library) -> None:
    """Between this process's reading and writing another renames, deletes and purges: the number that is written is free again."""
    write, calls = library.revisions.write, []

    def late(entry: object) -> None:
        if not calls:
            calls.append(entry)
            other = Library()
            other.rename("fox", "wolf")
            other.delete("wolf")
            other.purge("wolf")
        write(entry)  # type: ignore[arg-type]

    library.revisions.write = late  # type: ignore[method-assign]
    with pytest.raises(EntryNotFound, match="deleted meanwhile"):
        library.annotate("fox", "precious")
    assert library.list(trashed=True).total == library.list().total == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 10**400},
        {"similarity": 10**400},
        {"composition": []},
        {"composition": {"contexts": []}},
        {"composition": {"contexts": [{"context": "a {}", "similarity": 10**400, "floor": 0.1}]}},
        {"similarity": float("inf")},
        {"tags": {"a": 1}, "note": [], "name": "x\ud800"},
        {"trashed": "\ud800"},
        {"trashed": ""},
        {"revision": "1"},
        {"created": 7},
    ],
)
def test_a_whole_file_with_hostile_values_harms_no_command(library: Library, changes: dict[str, object]) -> None:
    planted = library.path("ab" * 8, 1)
    planted.write_bytes(
        with_provenance(library.path(library.find("fox").id, 1).read_bytes(), {"id": "ab" * 8} | changes)
    )
    assert "fox" in [one.name for one in library.list().entries]
    assert library.rebuild() >= 1
    library.check()
    for call in (
        library.open,
        library.duplicate,
        lambda name: library.tag(name, ["red"]),
        library.delete,
        library.restore,
    ):
        with suppress(SoftPromptError):
            call("ab" * 8)
    assert library.open("fox").prompt.name == "fox"


def with_provenance(raw: bytes, changes: dict[str, object]) -> bytes:
    """The file with other words in its header and a digest that is right."""
    from safetensors.numpy import load, save

    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    provenance = json.loads(header["__metadata__"]["softprompt"]) | changes
    made: bytes = save(load(raw), {"softprompt": json.dumps(provenance), "sha256": "0" * 64})
    return made.replace(b"0" * 64, hashlib.sha256(made).hexdigest().encode(), 1)


def test_what_cannot_be_read_again_is_not_saved(library: Library) -> None:
    with pytest.raises(LibraryError, match="not finite"):
        library.save(a_prompt(loss=float("nan")))
    assert library.list().total == 1


def test_the_last_number_is_no_trap(library: Library) -> None:
    library.path("ab" * 8, 999_999_999).write_bytes(
        with_provenance(
            library.path(library.find("fox").id, 1).read_bytes(),
            {"id": "ab" * 8, "revision": 999_999_999, "name": "last"},
        )
    )
    with pytest.raises(LibraryError, match="no number is left"):
        library.annotate("last", "precious")


def test_a_backup_that_is_brought_back_twice_adds_nothing_twice(library: Library, tmp_path: Path) -> None:
    library.back_up(tmp_path / "b.zip")
    fox = library.find("fox")
    raw = bytearray(fox.path.read_bytes())
    raw[-1] ^= 1
    fox.path.write_bytes(raw)
    assert len(library.bring_back(tmp_path / "b.zip").beside) == 1
    assert library.bring_back(tmp_path / "b.zip").beside == []
    assert library.list().total == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {"contexts": 5}},
        {"config": {"against": [1]}},
        {"config": {"tokens": "many"}},
        {"config": {"rate": True}},
        {"versions": {"torch": {"a": 1}}},
        {"created": "yesterday"},
        {"created": "2026-01-01T00:00:00"},
        {"created": "0001-01-01T00:00:00+14:00"},
        {"created": "9999-12-31T23:59:59-14:00"},
        {"changed": "0001-01-01T00:00:00+14:00"},
        {"hidden": {"sd1": "nan"}},
        {"hidden": {"sd1": True}},
        {"steps": -5},
        {"seconds": -1},
        {"source": {"file": ["x"]}},
        {"source": {"file": {"a": 1}}},
        {"meanings": [{"text": "a", "share": 0.1}] * 65},
        {"composition": {"contexts": [{"context": "a {}", "similarity": "nan", "floor": 0.1}]}},
        {"ancestry": [{"relation": "\x1b[31m", "id": "x", "name": "x", "hard_prompt": "", "model": "", "model_fingerprint": "", "weight": 1}]},
        {"ancestry": [{"relation": "mixed", "id": "x", "name": "x", "hard_prompt": "", "model": "", "model_fingerprint": "", "weight": "nan"}]},
    ],
)  # fmt: skip
def test_a_provenance_that_this_program_cannot_have_written_is_not_opened(
    library: Library, changes: dict[str, object]
) -> None:
    fox = library.find("fox")
    raw = fox.path.read_bytes()
    library.path("ab" * 8, 1).write_bytes(with_provenance(raw, {"id": "ab" * 8}))
    assert library.revisions.read("ab" * 8, 1).id == "ab" * 8
    library.path("ab" * 8, 1).write_bytes(with_provenance(raw, {"id": "ab" * 8} | changes))
    with pytest.raises(EntryDamaged, match="is no entry of this library"):
        library.revisions.read("ab" * 8, 1)


def test_settings_of_other_versions_stay(library: Library) -> None:
    raw = with_provenance(
        library.find("fox").path.read_bytes(), {"id": "ab" * 8, "config": {"momentum": {"a": [1]}, "tokens": 2}}
    )
    library.path("ab" * 8, 1).write_bytes(raw)
    assert library.open("ab" * 8).prompt.config["momentum"] == {"a": [1]}


@pytest.mark.parametrize(("losses", "similarities"), [(3, 1), (0, 2)])
def test_losses_and_similarities_are_one_of_each_for_every_step(
    library: Library, losses: int, similarities: int
) -> None:
    odd = a_prompt(name="odd", losses=np.zeros(losses, np.float32), similarities=np.zeros(similarities, np.float32))
    library.path("ab" * 8, 1).write_bytes(pack(Entry("ab" * 8, 1, odd)))
    with pytest.raises(EntryDamaged, match="one of each for every step"):
        library.open("ab" * 8)


V = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"losses": V[0, :3]}, "losses has 3 values, similarities 5"),
        ({"losses": V[0] * np.inf, "similarities": V[0]}, "losses holds a number that is not finite"),
        ({"losses": V[0], "similarities": V[0] * np.nan}, "similarities holds a number that is not finite"),
        ({"vectors": V * np.nan}, "vectors holds a number that is not finite"),
        ({"vectors": V.astype(np.float64) * 1e300}, "vectors holds a number that is not finite"),
        ({"target": V[0] * np.inf}, "target holds a number that is not finite"),
        ({"target": V}, "target has the shape (2, 4); one dimension"),
        ({"vectors": V[0]}, "vectors has the shape (4,)"),
        ({"vectors": V[:0]}, "vectors has the shape (0, 4)"),
        ({"vectors": V.astype(int)}, "vectors holds int64; float32"),
        ({"vectors": [["a"]]}, "vectors holds <U1; float32"),
        ({"vectors": V * 1j}, "vectors holds complex64; float32"),
        ({"similarity": float("nan")}, "similarity is nan, which is not finite"),
        ({"similarity": np.float32(1)}, "similarity is np.float32(1.0); a text, a number"),
        ({"hidden": {"sd1": float("inf")}}, "hidden.sd1 is inf, which is not finite"),
        ({"composition": ContextFidelity((ContextScore("{} x", float("nan"), 0.1),))}, "composition.mean is nan"),
        ({"steps": -1}, "steps or seconds"),
        ({"created": "yesterday"}, "'yesterday' is no time"),
        ({"config": {"steps": "many"}}, "the setting steps is many"),
        ({"config": {"x": {1: 2, "1": 3}}}, "config.x has the key 1; a text"),
        ({"source": {"x": object()}}, "source.x is <object"),
        ({"source": {"x": [1]}}, "its source holds a list"),
        ({"model": None}, "model is None"),
        ({"warnings": ("a" * (16 << 20),)}, "cut short"),
        ({"config": {"x": functools.reduce(lambda inner, _: [inner], range(3000), [])}}, "recursion"),  # type: ignore[arg-type, return-value]
    ],
)
def test_what_could_not_be_opened_again_is_not_saved(library: Library, changes: dict[str, Any], said: str) -> None:
    before = sorted(library.entries.iterdir())
    prompt = a_prompt(**changes)
    entry = Entry("ab" * 8, 1, prompt.named("odd"))
    for save in (
        lambda: library.save(prompt),
        lambda: library.save_all([entry]),
        lambda: library.revisions.write(entry),
    ):
        with pytest.raises(EntryRefused, match="cannot be saved.*" + re.escape(said)):
            save()
    assert sorted(library.entries.iterdir()) == before
    assert library.check().damaged == []
