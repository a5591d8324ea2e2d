"""Changes to saved entries: revisions, conflicts, trash, duplicates, backups and comparisons."""

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
from softprompt.library.diff import compare_entries
from softprompt.library.entry import Entry, pack
from softprompt.prompts.results import ContextFidelity, ContextScore
from tests.library_model import a_prompt, read_entries


@pytest.fixture
def library() -> Library:
    library = Library()
    library.save(a_prompt(name="fox"))
    return library


def test_edit_writes_a_new_revision_and_changes_nothing_else(library: Library) -> None:
    first = library.open("fox")
    library.rename("fox", "Rotfuchs")
    library.tag("rotfuchs", ["b", "A"])
    edited = library.annotate("rotfuchs", "good at night")
    assert (edited.id, edited.revision, edited.tags, edited.note) == (first.id, 4, ("A", "b"), "good at night")
    assert edited.changed
    again = library.open("Rotfuchs")
    assert again.prompt.as_dict() == first.prompt.named("Rotfuchs").as_dict()
    assert again.prompt.vectors.tobytes() == first.prompt.vectors.tobytes()
    assert library.tag("rotfuchs", remove=["a", "x"]).tags == ("b",)
    assert library.annotate("rotfuchs", "").note == ""


def test_change_without_effect_writes_no_revision(library: Library) -> None:
    assert library.rename("fox", "fox").revision == 1
    assert library.tag("fox", remove=["none"]).revision == 1
    assert library.rename("fox", "FOX").revision == 2


def test_taken_or_reserved_name_is_rejected(library: Library) -> None:
    library.save(a_prompt(name="lake"))
    with pytest.raises(BadName, match="already has a soft prompt named FOX"):
        library.rename("lake", "FOX")
    with pytest.raises(BadName, match="reserved"):
        library.rename("lake", "v1")


def test_concurrent_changes_are_both_applied(library: Library) -> None:
    """Another process adds a tag between the read and the write of this process."""
    write = library.revisions.write
    calls = []

    def write_late(entry: object) -> None:
        if not calls:
            calls.append(entry)
            Library().tag("fox", ["theirs"])
        write(entry)  # type: ignore[arg-type]

    library.revisions.write = write_late  # type: ignore[method-assign]
    assert library.tag("fox", ["mine"]).tags == ("mine", "theirs")


def test_conflict_keeps_both_versions_under_one_name(library: Library) -> None:
    seen = library.open("fox")
    library.annotate("fox", "theirs")
    conflict = library.annotate("fox", "mine", revision=seen.revision)
    assert conflict.id != seen.id
    assert (conflict.prompt.name, conflict.note) == ("fox", "mine")
    assert library.open(seen.id).note == "theirs"
    with pytest.raises(EntryNotFound, match="several soft prompts are named") as caught:
        library.open("fox")
    assert seen.id in str(caught.value)
    assert conflict.id in str(caught.value)
    assert library.annotate(seen.id, "mine", revision=2).id == seen.id
    with pytest.raises(EntryNotFound, match="has no revision 9"):
        library.annotate(seen.id, "mine", revision=9)


def test_trash_restores_and_purges(library: Library) -> None:
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
        library.purge("fox-2")  # not in the trash
    library.delete("fox-2")
    library.delete("fox")
    assert library.purge("fox-2") == 1
    assert library.purge() == 1
    assert library.purge() == 0
    assert library.list(trashed=True).total == 0
    with pytest.raises(EntryNotFound):
        library.restore(fox.id)
    assert len(list(library.entries.iterdir())) == 2  # the tombstones


def test_purge_needs_an_intact_tombstone(library: Library) -> None:
    entry = library.open("fox")
    library.delete("fox")
    assert [listed.id for listed in library.list(trashed=True).entries] == [entry.id]
    with library.path(entry.id, 2).open("r+b") as file:  # the index does not notice
        file.write(b"damaged")
    assert library.purge() == 0
    assert library.path(entry.id, 1).exists()


def test_old_files_of_other_programs_are_not_removed(library: Library) -> None:
    names = ["x.1.safetensors.a1b2c3d4.partial", ".fox.partial", "0123456789abcdef.partial"]
    for name in (*names, ".0123456789abcdef.partial"):
        (library.entries / name).write_text("mine")
        os.utime(library.entries / name, (0, 0))
    library.list()
    assert sorted(path.name for path in library.entries.iterdir() if path.name.endswith(".partial")) == sorted(names)


def test_late_change_does_not_bring_back_a_purged_entry(library: Library) -> None:
    fox = library.find("fox")
    library.delete("fox")
    library.purge("fox")
    with pytest.raises(EntryNotFound, match="has been deleted"):
        library._change(fox, lambda entry: entry, None)


def test_saving_an_id_twice_saves_once_even_from_the_trash(library: Library) -> None:
    first = library.save(a_prompt(name="run"), id="ab" * 8)
    library.rename("run", "renamed")
    assert library.save(a_prompt(name="other"), id="ab" * 8).prompt.name == "renamed"
    library.delete("renamed")
    assert library.save(a_prompt(), id="ab" * 8).id == first.id
    assert library.list().total == 1


def test_duplicate_copies_everything_but_the_name(library: Library) -> None:
    library.tag("fox", ["red"])
    assert library.duplicate("fox").prompt.name == "fox-2"
    twin = library.duplicate("fox", "twin")
    assert (twin.prompt.name, twin.tags, twin.revision) == ("twin", ("red",), 1)
    with pytest.raises(BadName):
        library.duplicate("fox", "twin")


def test_backup_restores_everything_in_another_library(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.tag("fox", ["red"])
    library.save(a_prompt(name="lake"))
    library.delete("lake")
    before = read_entries(library)
    report = library.back_up(tmp_path / "b.zip")
    assert (report.files, report.damaged) == (4, [])
    with pytest.raises(ArchiveError, match="the file already exists"):
        library.back_up(tmp_path / "b.zip")
    monkeypatch.setenv("SOFTPROMPT_HOME", str(tmp_path / "other"))
    other = Library()
    assert other.restore_backup(tmp_path / "b.zip").files == 4
    assert read_entries(other) == before
    again = other.restore_backup(tmp_path / "b.zip")
    assert (again.files, again.present, again.new_ids) == (0, 4, [])


def test_backup_skips_and_reports_damaged_entries(library: Library, tmp_path: Path) -> None:
    bad = library.save(a_prompt(name="bad"))
    library.path(bad.id, 1).write_bytes(b"xx" * 90)
    report = library.back_up(tmp_path / "b.zip")
    assert report.files == 1
    assert bad.id in str(report.damaged[0])


def test_restore_saves_a_conflicting_entry_under_a_new_id(library: Library, tmp_path: Path) -> None:
    fox = library.annotate("fox", "in the backup")
    library.back_up(tmp_path / "b.zip")
    library.path(fox.id, 2).unlink()
    library.annotate("fox", "here")
    report = library.restore_backup(tmp_path / "b.zip")
    assert library.open(fox.id).note == "here"
    (new_id,) = report.new_ids
    assert (library.open(new_id).note, library.open(new_id).prompt.name) == ("in the backup", "fox-2")


def test_entry_purged_since_the_backup_is_restored_to_the_trash(library: Library, tmp_path: Path) -> None:
    library.back_up(tmp_path / "b.zip")
    library.delete("fox")
    library.purge("fox")
    library.restore_backup(tmp_path / "b.zip")
    assert library.list().total == 0
    assert library.restore("fox").prompt.name == "fox"


def rewrite_zip(path: Path, change: Callable[[dict[str, bytes]], None], **options: int) -> Path:
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    out = path.with_name("changed.zip")
    with zipfile.ZipFile(out, "w", options.get("packed", zipfile.ZIP_STORED)) as archive:
        for name, raw in parts.items():
            archive.writestr(name, raw)
    return out


def test_damaged_backup_is_rejected_completely(library: Library, tmp_path: Path) -> None:
    library.save(a_prompt(name="lake"))
    library.back_up(tmp_path / "b.zip")
    raw = (tmp_path / "b.zip").read_bytes()

    def remove_entry(parts: dict[str, bytes]) -> None:
        del parts[next(iter(parts))]

    def add_path(parts: dict[str, bytes]) -> None:
        parts["entries/../../evil"] = b"x"
        manifest = json.loads(parts["manifest.json"])
        manifest["entries"]["../../evil"] = "0" * 64
        parts["manifest.json"] = json.dumps(manifest).encode()

    def remove_manifest(parts: dict[str, bytes]) -> None:
        del parts["manifest.json"]

    def swap_entry(parts: dict[str, bytes]) -> None:
        first, second = sorted(name for name in parts if name != "manifest.json")
        parts[first] = parts[second]

    broken = [
        rewrite_zip(tmp_path / "b.zip", change).read_bytes()
        for change in (remove_entry, add_path, remove_manifest, swap_entry)
    ]
    broken.append(rewrite_zip(tmp_path / "b.zip", lambda _: None, packed=zipfile.ZIP_DEFLATED).read_bytes())
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
            other.restore_backup(tmp_path / "bad.zip")
        assert not other.entries.exists()
    with pytest.raises(ArchiveError, match="No such file"):
        other.restore_backup(tmp_path / "none.zip")


def test_comparison_covers_provenance_targets_and_tokens(library: Library) -> None:
    turned = np.stack([a_prompt().vectors[1], -a_prompt().vectors[0]])
    created = library.open("fox").prompt.created
    library.save(a_prompt(name="other", vectors=turned, steps=9, config={"tokens": 2, "seed": 1}, created=created))
    difference = compare_entries(library.open("fox"), library.open("other"))
    assert difference.fields == {
        "name": ("fox", "other"),
        "steps": (5, 9),
        "config: seed": (None, 1),
    }
    assert difference.target_similarity == pytest.approx(float(np.clip(a_prompt().target @ a_prompt().target, -1, 1)))
    assert difference.nearest_tokens()[1] == (0, pytest.approx(1.0))
    foreign = library.save(a_prompt(name="foreign", model_fingerprint="other"))
    assert compare_entries(library.open("fox"), foreign).cosines is None


def test_entry_without_tags_in_its_header_opens(library: Library) -> None:
    raw = library.path(library.find("fox").id, 1).read_bytes()
    assert b'\\"tags\\"' not in raw
    assert library.open("fox").tags == ()
    with pytest.raises(EntryDamaged):
        library.revisions.read("ff" * 8, 1) if library.path("ff" * 8, 1).write_bytes(raw) else None


def test_change_fails_if_the_entry_is_purged_meanwhile(library: Library) -> None:
    """Another process renames, deletes and purges the entry between the read and the write of this process.

    So the revision that this process writes is free again.
    """
    write, calls = library.revisions.write, []

    def write_late(entry: object) -> None:
        if not calls:
            calls.append(entry)
            other = Library()
            other.rename("fox", "wolf")
            other.delete("wolf")
            other.purge("wolf")
        write(entry)  # type: ignore[arg-type]

    library.revisions.write = write_late  # type: ignore[method-assign]
    with pytest.raises(EntryNotFound, match="has been deleted"):
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
def test_hostile_values_in_an_intact_file_break_no_command(library: Library, changes: dict[str, object]) -> None:
    planted = library.path("ab" * 8, 1)
    planted.write_bytes(
        change_provenance(library.path(library.find("fox").id, 1).read_bytes(), {"id": "ab" * 8} | changes)
    )
    assert "fox" in [entry.name for entry in library.list().entries]
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


def change_provenance(raw: bytes, changes: dict[str, object]) -> bytes:
    """Return the file with changed provenance and a valid digest."""
    from safetensors.numpy import load, save

    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    provenance = json.loads(header["__metadata__"]["softprompt"]) | changes
    changed_file: bytes = save(load(raw), {"softprompt": json.dumps(provenance), "sha256": "0" * 64})
    return changed_file.replace(b"0" * 64, hashlib.sha256(changed_file).hexdigest().encode(), 1)


def test_value_that_is_not_finite_is_not_saved(library: Library) -> None:
    with pytest.raises(LibraryError, match="not finite"):
        library.save(a_prompt(loss=float("nan")))
    assert library.list().total == 1


def test_last_revision_number_gives_a_clear_error(library: Library) -> None:
    library.path("ab" * 8, 999_999_999).write_bytes(
        change_provenance(
            library.path(library.find("fox").id, 1).read_bytes(),
            {"id": "ab" * 8, "revision": 999_999_999, "name": "last"},
        )
    )
    with pytest.raises(LibraryError, match="no revision number is left"):
        library.annotate("last", "precious")


def test_restoring_a_backup_twice_adds_nothing_twice(library: Library, tmp_path: Path) -> None:
    library.back_up(tmp_path / "b.zip")
    fox = library.find("fox")
    raw = bytearray(fox.path.read_bytes())
    raw[-1] ^= 1
    fox.path.write_bytes(raw)
    assert len(library.restore_backup(tmp_path / "b.zip").new_ids) == 1
    assert library.restore_backup(tmp_path / "b.zip").new_ids == []
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
        {"ancestry": [{"relation": "\x1b[31m", "id": "x", "name": "x", "hard_prompt": "", "model": "",
                       "model_fingerprint": "", "weight": 1}]},
        {"ancestry": [{"relation": "mixed", "id": "x", "name": "x", "hard_prompt": "", "model": "",
                       "model_fingerprint": "", "weight": "nan"}]},
    ],
)  # fmt: skip
def test_invalid_provenance_is_not_opened(library: Library, changes: dict[str, object]) -> None:
    fox = library.find("fox")
    raw = fox.path.read_bytes()
    library.path("ab" * 8, 1).write_bytes(change_provenance(raw, {"id": "ab" * 8}))
    assert library.revisions.read("ab" * 8, 1).id == "ab" * 8
    library.path("ab" * 8, 1).write_bytes(change_provenance(raw, {"id": "ab" * 8} | changes))
    with pytest.raises(EntryDamaged, match="is not a valid library entry"):
        library.revisions.read("ab" * 8, 1)


def test_unknown_settings_are_preserved(library: Library) -> None:
    raw = change_provenance(
        library.find("fox").path.read_bytes(), {"id": "ab" * 8, "config": {"momentum": {"a": [1]}, "tokens": 2}}
    )
    library.path("ab" * 8, 1).write_bytes(raw)
    assert library.open("ab" * 8).prompt.config["momentum"] == {"a": [1]}


@pytest.mark.parametrize(("losses", "similarities"), [(3, 1), (0, 2)])
def test_losses_and_similarities_must_have_equal_length(library: Library, losses: int, similarities: int) -> None:
    odd = a_prompt(name="odd")
    odd.__dict__.update(losses=np.zeros(losses, np.float32), similarities=np.zeros(similarities, np.float32))
    library.path("ab" * 8, 1).write_bytes(pack(Entry("ab" * 8, 1, odd)))
    with pytest.raises(EntryDamaged, match="both must have one value per step"):
        library.open("ab" * 8)


V = np.ones((2, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": V[0] * np.inf, "similarities": V[0]}, "losses contains a number that is not finite"),
        ({"losses": V[0], "similarities": V[0] * np.nan}, "similarities contains a number that is not finite"),
        ({"similarity": float("nan")}, "similarity is nan, which is not finite"),
        ({"hidden": {"sd1": float("inf")}}, "hidden.sd1 is inf, which is not finite"),
        ({"composition": ContextFidelity((ContextScore("{} x", float("nan"), 0.1),))}, "composition.mean is nan"),
        ({"steps": -1}, "steps or seconds"),
        ({"created": "yesterday"}, "'yesterday' is not a valid time"),
        ({"config": {"steps": "many"}}, "the setting steps cannot be many"),
        ({"config": {"x": {1: 2, "1": 3}}}, "config.x has the key 1; expected a string"),
        ({"source": {"x": object()}}, "source.x is <object"),
        ({"source": {"x": [1]}}, "its source contains a list"),
        ({"warnings": ("a" * (16 << 20),)}, "truncated"),
        ({"config": {"x": functools.reduce(lambda inner, _: [inner], range(3000), [])}}, "recursion"),  # type: ignore[arg-type, return-value]
    ],
)
def test_prompt_that_could_not_be_opened_again_is_not_saved(
    library: Library, changes: dict[str, Any], message: str
) -> None:
    before = sorted(library.entries.iterdir())
    prompt = a_prompt(**changes)
    entry = Entry("ab" * 8, 1, prompt.named("odd"))
    for save in (
        lambda: library.save(prompt),
        lambda: library.save_all([entry]),
        lambda: library.revisions.write(entry),
    ):
        with pytest.raises(EntryRefused, match="cannot be saved.*" + re.escape(message)):
            save()
    assert sorted(library.entries.iterdir()) == before
    assert library.check().damaged == []
