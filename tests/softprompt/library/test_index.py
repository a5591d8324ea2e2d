"""Finding in the library: words, filters, order; and an index that may be locked, broken, foreign or gone."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt import Library
from softprompt.errors import BadName, ConfigError, EntryNotFound
from softprompt.library import SORTS, index
from softprompt.library.names import check_note, check_tags
from softprompt.library.search_terms import words
from softprompt.system.filesystems import is_shared
from tests.library_model import a_prompt


def names(library: Library, *args: object, **kwargs: object) -> list[str]:
    return [one.name for one in library.list(*args, **kwargs).entries]  # type: ignore[arg-type]


@pytest.fixture
def library(said: list[str]) -> Library:
    made = Library(say=said.append)
    for i, (name, prompt, similarity) in enumerate(
        [
            ("Zebra", "a zebra in the Öresund", 0.9),
            ("lake", "mountain lake at sunrise", 0.99),
            ("雪", "雪の中の赤い狐", 0.8),
        ]
    ):
        made.save(
            a_prompt(
                name=name,
                hard_prompt=prompt,
                similarity=similarity,
                created=f"2026-01-0{i + 1}T00:00:00+00:00",
                steps=10 + i,
            )
        )
    return made


@pytest.fixture
def said() -> list[str]:
    return []


def index_file(home: Path) -> Path:
    (path,) = (home / "cache").glob("library-*.sqlite")
    return path


def test_words_are_found_wherever_they_stand_and_only_begun(library: Library) -> None:
    library.tag("lake", ["Nature", "style:photo"])
    library.annotate("Zebra", "too dark at night")
    assert names(library, "sunr") == ["lake"]
    assert names(library, "oresund") == names(library, "ÖRESUND") == ["Zebra"]
    assert names(library, "night dark") == ["Zebra"]
    assert names(library, "natu lake") == ["lake"]
    assert names(library, "赤狐") == ["雪"]
    assert names(library, "fox") == ["雪", "lake", "Zebra"]  # the readout of all
    assert names(library, "sunrise zebra") == names(library, "xyz") == names(library, "!!!") == []
    assert names(library, '"; DROP TABLE head; -- OR * NEAR(') == []


def test_filters_and_order(library: Library) -> None:
    library.tag("lake", ["Nature", "style:photo"])
    library.tag("Zebra", ["nature"])
    assert names(library, tags=["NATURE"]) == ["lake", "Zebra"]
    assert names(library, tags=["nature", "style:photo"]) == ["lake"]
    assert names(library, tags=["natu"]) == names(library, model="ViT") == []
    assert names(library, model="MINI", sort="similarity") == ["lake", "Zebra", "雪"]
    assert names(library, sort="similarity", reverse=True) == ["雪", "Zebra", "lake"]
    assert names(library, sort="name") == ["lake", "Zebra", "雪"]
    assert names(library, sort="changed")[:2] in (["Zebra", "lake"], ["lake", "Zebra"])  # within one second
    found = library.list(limit=1, offset=1)
    assert ([one.name for one in found.entries], found.total) == (["lake"], 3)
    for sort in SORTS:
        assert len(names(library, sort=sort)) == 3
    with pytest.raises(ConfigError, match="created, changed, name"):
        library.list(sort="size")


def test_lists_of_many_entries_are_the_same_as_of_few(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.library import queries

    few = {sort: names(library, "a", sort=sort) for sort in SORTS}
    monkeypatch.setattr(queries, "FEW", 0)
    assert {sort: names(library, "a", sort=sort) for sort in SORTS} == few


def test_changes_by_another_process_are_seen_at_once(library: Library) -> None:
    other = Library()
    assert other.rename("lake", "see").revision == 2
    assert names(library, "see") == ["see"]
    other.delete("see")
    assert names(library) == ["雪", "Zebra"]
    with pytest.raises(EntryNotFound, match="is in the trash: `softprompt-tui restore see`"):
        library.find("see")
    assert names(library, trashed=True) == ["see"]


def test_a_held_lock_blocks_nobody(
    library: Library, said: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "WAIT", 0.05)
    library.list()
    for lock in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
        holder = sqlite3.connect(index_file(home), isolation_level=None)
        holder.execute("PRAGMA journal_mode = DELETE" if lock == "BEGIN EXCLUSIVE" else "PRAGMA user_version")
        holder.execute(lock)
        said.clear()
        library = Library(say=said.append)
        saved = library.save(a_prompt(name="while held"))
        assert saved.prompt.name in names(library, "while")
        assert [words for words in said if "is held by another program" in words] == said[:1] == said
        holder.close()
    said.clear()
    assert len(names(library, "while")) == 2
    assert said == []


@pytest.mark.parametrize("harm", ["text", "cut", "other program", "folder", "link", "unreadable tables"])
def test_a_broken_or_foreign_index_is_replaced_by_another_beside_it(
    library: Library, said: list[str], home: Path, tmp_path: Path, harm: str
) -> None:
    before = names(library)
    path = index_file(home)
    raw = path.read_bytes()
    path.unlink()
    foreign = sqlite3.connect(tmp_path / "foreign.sqlite")
    foreign.execute("CREATE TABLE head (key, id)")
    foreign.commit()
    match harm:
        case "text":
            path.write_text("this is no database")
        case "cut":
            path.write_bytes(raw[: len(raw) // 2])
        case "other program":
            path.write_bytes((tmp_path / "foreign.sqlite").read_bytes())
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path / "foreign.sqlite")
        case _:
            path.write_bytes(raw[:8192] + os.urandom(len(raw) - 8192))
    os.utime(library.entries)  # whatever stands in it is to be read
    assert names(library) == before
    assert said
    assert "into another one" in said[0]
    said.clear()
    assert names(library) == before
    assert said == []
    assert foreign.execute("SELECT count(*) FROM head").fetchone() == (0,)


def test_without_a_place_for_an_index_all_still_works(home: Path, said: list[str]) -> None:
    home.mkdir()
    (home / "cache").write_text("a file where a folder should be")
    library = Library(say=said.append)
    library.save(a_prompt(name="fox"))
    assert names(library, "fox") == ["fox"]
    assert "an index cannot be kept" in said[-1]


def test_a_rebuilt_index_says_the_same(library: Library) -> None:
    library.delete("lake")
    before = library.list(), library.list(trashed=True)
    assert library.rebuild() == 3
    assert (library.list(), library.list(trashed=True)) == before


def test_a_library_put_back_from_a_copy_is_read_anew(library: Library, tmp_path: Path) -> None:
    shutil.copytree(library.entries, tmp_path / "copy")
    library.rename("lake", "see")
    assert "see" in names(library)
    shutil.rmtree(library.entries)
    assert names(library) == []
    shutil.copytree(tmp_path / "copy", library.entries)
    library.rename("lake", "meer")  # the same revision of the same id, with other bytes
    assert "meer" in names(library)


def test_the_index_is_private_and_lies_on_local_storage(
    library: Library, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    library.list()
    assert stat.S_IMODE(index_file(home).stat().st_mode) == 0o600
    table = tmp_path / "mountinfo"
    table.write_text(
        "22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n"
        "40 22 0:40 / /home rw - nfs4 server:/home rw\n"
        "41 40 0:41 / /home/me/with\\040space rw - ext4 /dev/sdb1 rw\n"
        "42 22 0:42 / /scratch rw master:3 - lustre mgs:/scratch rw\n"
        "43 22 0:43 / /mnt/box rw - fuse.sshfs box: rw\n"
    )
    shared = {
        path: is_shared(Path(path), table)
        for path in ("/", "/home", "/home/me/x", "/homes", "/home/me/with space/x", "/scratch/a", "/mnt/box")
    }
    assert shared == {
        "/": False, "/home": True, "/home/me/x": True, "/homes": False, "/home/me/with space/x": False, "/scratch/a": True, "/mnt/box": True,
    }  # fmt: skip
    monkeypatch.setattr(index, "is_shared", lambda _: True)
    remote = Library()
    local = Path(f"/var/tmp/softprompt-tui-{os.geteuid()}")
    try:
        assert names(remote) == names(library)
        assert [path for path in local.iterdir() if path.name.startswith(remote.index._stem)]
    finally:
        for path in local.glob(f"{remote.index._stem}.*"):
            path.unlink()


@given(st.text(), st.text())
def test_words_of_any_text_are_plain_and_found_in_a_longer_text(text: str, more: str) -> None:
    found = words(text)
    assert all(word and not any(char.isspace() or char in '"*()^:-+\ue000\ue001' for char in word) for word in found)
    assert set(found) <= set(words(f"{text} {more}"))
    assert words(text.upper()) == words(text.upper().lower()) or not text.isascii()


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_tags_are_tidied_or_refused(tags: list[str]) -> None:
    try:
        kept = check_tags(tags)
    except BadName:
        return
    assert check_tags(kept) == kept
    assert all(tag and "/" not in tag and " " not in tag for tag in kept)


def test_notes_and_tags_have_bounds() -> None:
    with pytest.raises(BadName, match="10,001 characters"):
        check_note("x" * 10_001)
    with pytest.raises(BadName, match="51 tags"):
        check_tags(str(i) for i in range(51))
    assert check_note(" two\nlines ") == "two\nlines"
    with pytest.raises(BadName, match="the note is no UTF-8 text: character 11 cannot be read"):
        check_note(" two\nlines \ud800")
