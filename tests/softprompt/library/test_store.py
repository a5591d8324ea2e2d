"""The library saves, verifies, opens and lists entries. Names never become paths."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt import Library, SoftPrompt
from softprompt.errors import BadName, EntryDamaged, EntryNotFound, HomeError
from softprompt.library.entry import unpack
from softprompt.library.header import read_provenance
from softprompt.library.names import check_name, name_from_prompt
from tests.library_model import a_prompt


def same_prompt(a: SoftPrompt, b: SoftPrompt) -> bool:
    return a.as_dict() == b.as_dict() and all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("vectors", "target", "losses", "similarities")
    )


def test_saved_prompt_opens_with_identical_bits() -> None:
    library = Library()
    for prompt in (a_prompt(), a_prompt(composition=None, name="second")):
        entry = library.save(prompt)
        again = library.open(entry.prompt.name)
        assert (again.id, again.revision) == (entry.id, 1)
        assert same_prompt(again.prompt, prompt.named(entry.prompt.name))


def test_entry_is_a_private_safetensors_file_named_after_its_id(home: Path) -> None:
    from safetensors.numpy import load_file

    entry = Library().save(a_prompt(name="Red fox"))
    path = home / "data" / "library" / "entries" / f"{entry.id}.1.safetensors"
    assert set(load_file(path)) == {"vectors", "target", "losses", "similarities"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(path.parent.iterdir()) == [path]


def test_every_changed_or_missing_byte_is_detected() -> None:
    library = Library()
    entry = library.save(a_prompt(warnings=()))
    path = library.path(entry.id, 1)
    raw = path.read_bytes()
    for i in range(len(raw)):
        with pytest.raises(EntryDamaged):
            unpack(raw[:i] + bytes([raw[i] ^ 1]) + raw[i + 1 :], str(path))
        with pytest.raises(EntryDamaged):
            unpack(raw[:i], str(path))


def test_damaged_file_does_not_hide_other_entries() -> None:
    library = Library()
    good = library.save(a_prompt(name="good"))
    bad = library.save(a_prompt(name="bad"))
    library.path(bad.id, 1).write_bytes(b"\xff" * 40)
    page = library.list()
    assert [entry.id for entry in page.entries] == [good.id]
    assert [bad.id in str(error) for error in page.damaged] == [True]


def test_malformed_header_is_rejected() -> None:
    deep = json.dumps({"__metadata__": {"softprompt": "[" * 200_000}}).encode()
    nan = json.dumps({"__metadata__": {"softprompt": '{"name": "x", "similarity": NaN}'}}).encode()
    for header in (b'{"a":1,"a":2}', b"[" * 100_000, b"[1]", b"{}", b'{"__metadata__":[]}', deep, nan):
        raw = len(header).to_bytes(8, "little") + header
        for read in (unpack, read_provenance):
            with pytest.raises(EntryDamaged):
                read(raw, "file")
    with pytest.raises(EntryDamaged):
        unpack((1 << 60).to_bytes(8, "little") + b"{}", "file")


@pytest.mark.parametrize("changes", [{"similarity": "high"}, {"steps": 1.5}, {"config": []}, {"hard_prompt": None}])
def test_values_of_the_wrong_type_are_rejected(changes: dict[str, Any]) -> None:
    from softprompt.library.entry import Entry, pack

    prompt = a_prompt()
    prompt.__dict__.update(changes)  # the constructor refuses them
    with pytest.raises(EntryDamaged, match="is not a valid library entry"):
        unpack(pack(Entry("ab", 1, prompt)), "file")


@pytest.mark.parametrize("call", ["open", "write", "fsync", "close", "link"])
def test_failed_save_leaves_nothing_and_raises(monkeypatch: pytest.MonkeyPatch, home: Path, call: str) -> None:
    library = Library()
    library.prepare()
    original = getattr(os, call)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if call == "close":
            original(*args)
        if call == "open" and "entries" not in str(args[0]):
            return original(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    if call == "link":
        monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(HomeError, match=r"No space left on device\. Nothing was saved|cannot write to .*: No space"):
        library.save(a_prompt())
    monkeypatch.undo()
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    assert list(library.entries.iterdir()) == []
    assert library.list().entries == library.list().damaged == []


def test_save_fails_if_its_temporary_file_cannot_be_removed(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    original = Path.unlink

    def fail(path: Path, missing_ok: bool = False) -> None:
        if not missing_ok:
            raise OSError(errno.EIO, "Input/output error")
        original(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", fail)
    with pytest.raises(HomeError, match="Nothing was saved"):
        Library().save(a_prompt())
    assert list(Library().entries.iterdir()) == []


def test_file_system_without_hard_links_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert Library().save(a_prompt()).prompt.name == "red-fox-bold"


def test_prepare_reports_a_home_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SOFTPROMPT_HOME", str(tmp_path / "file"))
    with pytest.raises(HomeError, match=r"cannot create .*set SOFTPROMPT_HOME to a folder"):
        Library().prepare()


def test_name_comes_from_the_distinctive_words() -> None:
    assert name_from_prompt("image of serene landscape at sunrise with trees", ()) == "serene-landscape-sunrise"
    assert (
        name_from_prompt("image of serene landscape at sunrise", {"serene-landscape-sunrise"})
        == "serene-landscape-sunrise-2"
    )
    assert name_from_prompt("a of the", ()) == "a-of-the"
    assert name_from_prompt("!!! 🙂", ()) == "prompt"
    assert name_from_prompt("v1", ()) == "prompt-v1"
    assert name_from_prompt("雪の中の赤い狐", ()) == "雪の中の赤い狐"


def test_taken_name_is_rejected_before_and_numbered_after_a_training() -> None:
    library = Library()
    assert library.check_new_name(" Fuchs straße ") == "Fuchs straße"
    library.save(a_prompt(name="Fuchs straße"))
    with pytest.raises(BadName, match="already has a soft prompt named fuchs STRASSE"):
        library.check_new_name("fuchs STRASSE")
    assert library.save(a_prompt(name="fuchs STRASSE")).prompt.name == "fuchs STRASSE-2"
    assert library.save(a_prompt(name="fuchs STRASSE")).prompt.name == "fuchs STRASSE-3"


def test_save_fails_if_the_folder_cannot_be_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.system import files

    def fail(_folder: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    library = Library()
    library.prepare()
    monkeypatch.setattr(files, "sync_folder", fail)
    with pytest.raises(HomeError, match="Nothing was saved"):
        library.save(a_prompt())
    assert list(library.entries.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a" * 81, "81 characters"),
        ("../x", "'.'"),
        ("a/b", "'/'"),
        ("a\x1bb", "x1b"),
        ("a[b]", r"'\['"),
        ("🙂" * 3, "'🙂'"),
        ("v1", "reserved"),
        ("V12", "reserved"),
        ("a\u202eb", "u202e"),
    ],
)
def test_invalid_name_is_rejected(name: str, message: str) -> None:
    with pytest.raises(BadName, match=message):
        check_name(name)


@pytest.mark.parametrize("name", ["landscape", "v1 red", "été", "雪", "a-b_c 9", "हिन्दी", "CON"])
def test_valid_name_is_accepted(name: str) -> None:
    assert check_name(f" {name} ") == check_name(name)


@given(st.text(max_size=60))
def test_any_text_is_a_valid_name_or_raises_bad_name(text: str) -> None:
    with suppress(BadName):
        assert check_name(check_name(text)) == check_name(text)
    assert check_name(name_from_prompt(text, ()))


def test_find_by_name_id_and_id_prefix() -> None:
    library = Library()
    fox = library.save(a_prompt(name="Fox"))
    library.save(a_prompt(name="forest"))
    assert library.find("fOX").id == library.find(fox.id).id == library.find(fox.id[:6]).id == fox.id
    with pytest.raises(EntryNotFound, match=r"no soft prompt is named 'forst'\. Close: forest"):
        library.find("forst")
    with pytest.raises(EntryNotFound, match=r"`library\.list\(\)` shows all"):
        library.find("qqqqqq")


def test_entries_with_the_same_name_need_an_id() -> None:
    library = Library()
    first = library.save(a_prompt(name="fox"))
    second = library.save(a_prompt(name="other"))
    from softprompt.library.entry import Entry, pack

    library.path(second.id, 1).write_bytes(pack(Entry(second.id, 1, a_prompt(name="FOX"))))
    with pytest.raises(EntryNotFound, match="several soft prompts are named") as caught:
        library.find("fox")
    assert first.id in str(caught.value)
    assert library.find(second.id).id == second.id


def test_listing_imports_neither_torch_nor_numpy() -> None:
    Library().save(a_prompt())
    code = (
        "import sys; from softprompt.library import Library; "
        "print(len(Library().list().entries), sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "1 []"
    )
