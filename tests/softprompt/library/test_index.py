"""Search the library by words, filters and order, with an index that can be locked, broken, foreign or missing."""

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
from softprompt.library.search_terms import split_words
from softprompt.system.filesystems import is_shared
from tests.library_model import a_prompt


def names(library: Library, *args: object, **kwargs: object) -> list[str]:
    return [entry.name for entry in library.list(*args, **kwargs).entries]  # type: ignore[arg-type]


@pytest.fixture
def library(notices: list[str]) -> Library:
    library = Library(notify=notices.append)
    for i, (name, prompt, similarity) in enumerate(
        [
            ("Zebra", "a zebra in the Öresund", 0.9),
            ("lake", "mountain lake at sunrise", 0.99),
            ("雪", "雪の中の赤い狐", 0.8),
        ]
    ):
        library.save(
            a_prompt(
                name=name,
                hard_prompt=prompt,
                similarity=similarity,
                created=f"2026-01-0{i + 1}T00:00:00+00:00",
                steps=10 + i,
            )
        )
    return library


@pytest.fixture
def notices() -> list[str]:
    return []


def index_file(home: Path) -> Path:
    (path,) = (home / "cache").glob("library-*.sqlite")
    return path


def test_search_finds_words_and_prefixes_in_every_text_field(library: Library) -> None:
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


def test_filters_and_sort_order(library: Library) -> None:
    library.tag("lake", ["Nature", "style:photo"])
    library.tag("Zebra", ["nature"])
    assert names(library, tags=["NATURE"]) == ["lake", "Zebra"]
    assert names(library, tags=["nature", "style:photo"]) == ["lake"]
    assert names(library, tags=["natu"]) == names(library, model="ViT") == []
    assert names(library, model="MINI", sort="similarity") == ["lake", "Zebra", "雪"]
    assert names(library, sort="similarity", reverse=True) == ["雪", "Zebra", "lake"]
    assert names(library, sort="name") == ["lake", "Zebra", "雪"]
    assert names(library, sort="changed")[:2] in (["Zebra", "lake"], ["lake", "Zebra"])  # within one second
    page = library.list(limit=1, offset=1)
    assert ([entry.name for entry in page.entries], page.total) == (["lake"], 3)
    for sort in SORTS:
        assert len(names(library, sort=sort)) == 3
    with pytest.raises(ConfigError, match="created, changed, name"):
        library.list(sort="size")


def test_long_and_short_lists_have_the_same_order(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    from softprompt.library import queries

    few = {sort: names(library, "a", sort=sort) for sort in SORTS}
    monkeypatch.setattr(queries, "MAX_UNINDEXED_SORT", 0)
    assert {sort: names(library, "a", sort=sort) for sort in SORTS} == few


def test_changes_of_another_process_are_visible_at_once(library: Library) -> None:
    other = Library()
    assert other.rename("lake", "see").revision == 2
    assert names(library, "see") == ["see"]
    other.delete("see")
    assert names(library) == ["雪", "Zebra"]
    with pytest.raises(EntryNotFound, match=r"is in the trash\. Run `library\.restore\('see'\)`"):
        library.find("see")
    assert names(library, trashed=True) == ["see"]


def test_locked_index_does_not_block(
    library: Library, notices: list[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index, "LOCK_TIMEOUT_SECONDS", 0.05)
    library.list()
    for lock in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
        holder = sqlite3.connect(index_file(home), isolation_level=None)
        holder.execute("PRAGMA journal_mode = DELETE" if lock == "BEGIN EXCLUSIVE" else "PRAGMA user_version")
        holder.execute(lock)
        notices.clear()
        library = Library(notify=notices.append)
        saved = library.save(a_prompt(name="while held"))
        assert saved.prompt.name in names(library, "while")
        assert (
            [notice for notice in notices if "another program has locked the index" in notice] == notices[:1] == notices
        )
        holder.close()
    notices.clear()
    assert len(names(library, "while")) == 2
    assert notices == []


@pytest.mark.parametrize("damage", ["text", "cut", "other program", "folder", "link", "unreadable tables"])
def test_broken_or_foreign_index_is_replaced(
    library: Library, notices: list[str], home: Path, tmp_path: Path, damage: str
) -> None:
    before = names(library)
    path = index_file(home)
    raw = path.read_bytes()
    path.unlink()
    foreign = sqlite3.connect(tmp_path / "foreign.sqlite")
    foreign.execute("CREATE TABLE head (key, id)")
    foreign.commit()
    match damage:
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
    os.utime(library.entries)  # so that the index must be updated
    assert names(library) == before
    assert notices
    assert "A new one is being built" in notices[0]
    notices.clear()
    assert names(library) == before
    assert notices == []
    assert foreign.execute("SELECT count(*) FROM head").fetchone() == (0,)


def test_library_works_without_an_index_folder(home: Path, notices: list[str]) -> None:
    home.mkdir()
    (home / "cache").write_text("a file where a folder should be")
    library = Library(notify=notices.append)
    library.save(a_prompt(name="fox"))
    assert names(library, "fox") == ["fox"]
    assert "cannot write an index" in notices[-1]


def test_rebuilt_index_gives_the_same_lists(library: Library) -> None:
    library.delete("lake")
    before = library.list(), library.list(trashed=True)
    assert library.rebuild() == 3
    assert (library.list(), library.list(trashed=True)) == before


def test_library_restored_from_a_copy_is_indexed_again(library: Library, tmp_path: Path) -> None:
    shutil.copytree(library.entries, tmp_path / "copy")
    library.rename("lake", "see")
    assert "see" in names(library)
    shutil.rmtree(library.entries)
    assert names(library) == []
    shutil.copytree(tmp_path / "copy", library.entries)
    library.rename("lake", "meer")  # the same revision of the same id, with other bytes
    assert "meer" in names(library)


def test_index_is_private_and_on_local_storage(
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
        "/": False, "/home": True, "/home/me/x": True, "/homes": False, "/home/me/with space/x": False,
        "/scratch/a": True, "/mnt/box": True,
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
def test_search_terms_of_any_text_are_plain_and_found_in_a_longer_text(text: str, more: str) -> None:
    words = split_words(text)
    assert all(word and not any(char.isspace() or char in '"*()^:-+\ue000\ue001' for char in word) for word in words)
    assert set(words) <= set(split_words(f"{text} {more}"))
    assert split_words(text.upper()) == split_words(text.upper().lower()) or not text.isascii()


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_tags_are_normalized_or_rejected(tags: list[str]) -> None:
    try:
        checked = check_tags(tags)
    except BadName:
        return
    assert check_tags(checked) == checked
    assert all(tag and "/" not in tag and " " not in tag for tag in checked)


def test_notes_and_tags_have_limits() -> None:
    with pytest.raises(BadName, match="10,001 characters"):
        check_note("x" * 10_001)
    with pytest.raises(BadName, match="there are 51"):
        check_tags(str(i) for i in range(51))
    assert check_note(" two\nlines ") == "two\nlines"
    with pytest.raises(BadName, match="the note is not valid UTF-8: character 11 cannot be decoded"):
        check_note(" two\nlines \ud800")
