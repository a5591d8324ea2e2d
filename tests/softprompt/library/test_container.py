"""A library is a container of entries: `library["fox"]`, `"fox" in library`, `len(library)` and iteration."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from softprompt import Library
from softprompt.errors import BadName, EntryDamaged, EntryNotFound, MissingPackage
from softprompt.library.queries import EntrySummary
from tests.library_model import a_prompt


def test_an_empty_library_is_a_library() -> None:
    library = Library()
    assert len(library) == 0
    assert list(library) == []
    assert bool(library)
    assert "fox" not in library


def test_entries_are_found_by_name_and_counted() -> None:
    library = Library()
    fox, lake = library.save(a_prompt(name="Fox")), library.save(a_prompt(name="lake"))
    assert len(library) == 2
    assert library["fox"] == library.open("Fox") == fox
    assert library[lake.id] == lake
    for name in ("Fox", " fox ", fox.id, fox.id.upper()):
        assert name in library
    library.delete("lake")
    assert (len(library), [entry.prompt.name for entry in library]) == (1, ["Fox"])
    for absent in (
        "fo",
        "lake",
        lake.id,
        fox.id[:4],
        "",
        "\0",
        "\ud800",
        "'; --",
        "x" * 10**6,
        3,
        None,
        fox,
        fox.prompt,
    ):
        assert absent not in library


def test_a_missing_name_is_a_key_error_with_a_plain_message() -> None:
    library = Library()
    library.save(a_prompt(name="fox"))
    with pytest.raises(KeyError) as caught:
        library["fix"]
    assert isinstance(caught.value, EntryNotFound)
    assert str(caught.value) == "no soft prompt is named 'fix'. Close: fox."


def test_an_ambiguous_or_damaged_entry_is_present(caplog: pytest.LogCaptureFixture) -> None:
    library = Library()
    first = library.save(a_prompt(name="fox"))
    library.revisions.write(replace(first, id="ab" * 8))
    damaged = library.save(a_prompt(name="lake"))
    library.path(damaged.id, 1).write_bytes(b"\xff" * 40)
    assert "fox" in library
    assert damaged.id in library
    assert len(library) == 2
    with pytest.raises(EntryNotFound, match="several soft prompts are named 'fox'"):
        library["fox"]
    with pytest.raises(EntryDamaged):
        library[damaged.id]
    assert {entry.id for entry in library} == {first.id, "ab" * 8}


def test_iteration_opens_one_entry_at_a_time_newest_first(caplog: pytest.LogCaptureFixture) -> None:
    library = Library()
    for i in range(4):
        library.save(a_prompt(name=f"n{i}", created=f"2026-01-01T00:00:0{i}+00:00"))
    entries = iter(library)
    assert next(entries).prompt == library["n3"].prompt
    library.delete("n2")
    raw = library.path(library["n1"].id, 1).read_bytes()
    library.path(library["n1"].id, 1).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))  # its header is intact
    assert [entry.prompt.name for entry in entries] == ["n0"]
    assert "its bytes do not match their checksum" in caplog.text


def test_save_takes_a_name_and_a_taken_name_gets_a_number() -> None:
    library = Library()
    prompt = a_prompt(name="lake")
    assert [library.save(prompt, name="fox").prompt.name for _ in range(2)] == ["fox", "fox-2"]
    assert library.save(prompt).prompt.name == "lake"
    assert library.save(prompt, name="other", id="ab" * 8) == library.save(prompt, name="more", id="ab" * 8)
    with pytest.raises(BadName):
        library.save(prompt, name="a/b")
    assert library.tag("fox", "animal").tags == ("animal",)
    assert len(library) == 4


def test_the_folder_can_be_a_string_with_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    entry = Library("~/prompts").save(a_prompt(name="fox"))
    for folder in (tmp_path / "prompts", str(tmp_path / "prompts")):
        assert Library(folder)["fox"] == entry
    assert repr(Library(tmp_path / "prompts")) == "Library('~/prompts', 1 soft prompt)"
    assert len(Library()) == 0


def test_a_library_is_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    for name in ("fox", "lake"):
        library.save(a_prompt(name=name))
    table = library.to_dataframe()
    assert list(table.columns) == list(EntrySummary.__dataclass_fields__)
    assert sorted(table["name"]) == ["fox", "lake"]
    assert table["similarity"].tolist() == [0.9971, 0.9971]
    assert library.list(limit=1).to_dataframe().shape == (1, len(table.columns))
    assert list(Library().list("nothing").to_dataframe().columns) == list(table.columns)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match="pip install pandas"):
        library.to_dataframe()


def test_entries_with_equal_fields_are_equal() -> None:
    library = Library()
    entry = library.save(a_prompt(name="fox"))
    assert entry == Library().open("fox")
    assert hash(entry) == hash(Library().open("fox"))
    assert entry != library.tag("fox", "animal")
    assert entry != replace(entry, note="a note")
    assert entry != entry.prompt


def test_counting_and_looking_up_read_no_entry_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """They use the index, so that they are as fast with 100,000 entries."""
    library = Library()
    library.save(a_prompt(name="fox"))
    assert len(library) == 1
    monkeypatch.setattr(library.revisions, "read", lambda *_: pytest.fail("an entry file was read"))
    monkeypatch.setattr(library.revisions, "read_provenance", lambda *_: pytest.fail("an entry file was read"))
    assert len(library) == 1
    assert "fox" in library
    assert "lake" not in library
