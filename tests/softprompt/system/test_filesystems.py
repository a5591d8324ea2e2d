"""Disks as they are: file systems without modes, hard links, locks or synced folders, and disks that are full."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from softprompt import Library
from softprompt.errors import HomeError, WorkerError
from softprompt.jobs.job import TrainJob
from softprompt.library import index
from softprompt.system.files import replace_file
from softprompt.system.paths import INDEX
from softprompt.worker.endpoint import Endpoint, held
from softprompt.worker.log import StreamsFollow, log_path
from softprompt.worker.run_folder import EVENTS, RunFolder, runs_folder
from softprompt_tui.state import settings
from tests.library_model import a_prompt

NO_SUCH_THING = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL)  # FUSE, vfat and CIFS, others, 9p


def names(library: Library) -> list[str]:
    return [listed.name for listed in library.list().entries]


# what a file system may not have


@contextmanager
def lacking(error: int, *calls: str) -> Iterator[None]:
    """A file system on which these calls of `os` fail."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(error, os.strerror(error))

    with pytest.MonkeyPatch.context() as patch:
        for call in calls:
            patch.setattr(os, call, refuse)
        yield


@pytest.mark.parametrize("error", NO_SUCH_THING, ids=lambda error: errno.errorcode[error])
def test_without_modes_links_and_synced_folders_everything_is_saved_all_the_same(
    error: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(tmp_path / "r"))
    with lacking(error, "chmod", "fchmod", "link", "fsync"):
        library = Library()
        library.save(a_prompt(name="fox"))
        library.rename("fox", "wolf")
        library.delete(library.save(a_prompt(name="lake")).id)
        library.purge()
        library.back_up(tmp_path / "backup.zip")
        _, record = RunFolder.create(runs_folder(), TrainJob("a red fox"), 1.0)
        RunFolder(runs_folder() / record.id).append({"event": "paused"})
        settings.save(settings.Settings(prompt="a blue whale"))
        Endpoint().prepare()
    assert names(library) == ["wolf"]
    assert library.check().damaged == []
    assert RunFolder(runs_folder() / record.id).read().state == "paused"
    assert settings.load()[0].prompt == "a blue whale"
    assert {path.stat().st_mode & 0o077 for path in [home, *home.rglob("*")]} == {0}  # made private, where it was made


def test_the_workers_log_needs_no_modes_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    with lacking(errno.ENOSYS, "chmod", "fchmod"):
        StreamsFollow().close()
    assert log_path().exists()


def test_that_others_may_read_what_is_saved_is_said_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount can show every file as 0755, whatever mode it was made with."""
    touch, said = Path.touch, list[str]()
    monkeypatch.setattr(
        Path, "touch", lambda path, mode=0o666, exist_ok=True: (touch(path, mode, exist_ok), path.chmod(0o755))
    )
    library = Library(say=said.append)
    library.save(a_prompt(name="fox"))
    library.save(a_prompt(name="lake"))
    assert said == [f"other users may read what is saved in {home}/data/library: its file system keeps no modes"]


def test_without_locks_the_worker_says_where_it_can_be_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(WorkerError, match=r"No locks available.*SOFTPROMPT_RUNTIME to a folder on a local disk"),
        held(tmp_path / "lock", 1),
    ):
        pass


# full disks


def index_files(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (home / "cache").iterdir() if INDEX.fullmatch(path.name)}


@pytest.fixture
def full(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk whose last space the index has: while it is there nothing can be written."""
    write = os.write

    def call(descriptor: int, data: bytes) -> int:
        if any(index_files(home).values()):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", call)


def _append(library: Library, home: Path) -> None:
    (run,) = runs_folder().iterdir()
    RunFolder(run).append({"event": "paused"})
    assert RunFolder(run).read().state == "paused"


WRITES: dict[str, Callable[[Library, Path], Any]] = {
    "a training": lambda library, _: library.save(a_prompt(name="new")),
    "a change": lambda library, _: library.rename("fox", "wolf"),
    "rm": lambda library, _: library.delete("fox"),
    "settings and the draft in them": lambda *_: settings.save(settings.Settings(prompt="a draft")),
    "a run": lambda *_: RunFolder.create(runs_folder(), TrainJob("a lake"), 2.0),
    "a run's event": _append,
    "a checkpoint": lambda _, home: replace_file(home / "data" / "checkpoint", b"state"),
}


@pytest.mark.parametrize("what", WRITES)
def test_the_index_gives_its_space_to_what_cannot_be_made_again(
    what: str, home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    library = Library()
    library.save(a_prompt(name="fox"))
    RunFolder.create(runs_folder(), TrainJob("a red fox"), 1.0)
    assert names(library) == ["fox"]
    assert any(index_files(home).values())
    request.getfixturevalue("full")
    WRITES[what](library, home)
    monkeypatch.undo()
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    expected = {"a training": {"fox", "new"}, "a change": {"wolf"}, "rm": set()}
    assert set(names(library)) == expected.get(what, {"fox"})


def test_where_nothing_can_be_freed_the_error_says_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    library = Library()
    library.save(a_prompt(name="fox"))
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(HomeError, match=r"Disk quota exceeded.*nothing was saved"):
        library.save(a_prompt(name="new"))
    assert names(library) == ["fox"]


def test_an_event_that_fits_only_in_part_is_no_event(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up in the middle of a write says so only by the number of bytes that it took."""
    folder, _ = RunFolder.create(runs_folder(), TrainJob("a red fox"), 1.0)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:10]))
    with pytest.raises(OSError, match="No space left"):
        folder.append({"event": "stopping"})
    monkeypatch.setattr(os, "write", write)
    folder.append({"event": "paused"})
    assert folder.read().state == "paused"
    assert not folder.read().stopping
    assert [
        json.loads(line)["event"] for line in (folder.path / EVENTS).read_bytes().splitlines() if line.endswith(b"}")
    ] == [
        "queued",
        "paused",
    ]


def test_an_index_without_space_is_dropped_and_the_answer_read_from_the_entries(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    library = Library(say=said.append)
    for i in range(3):
        library.save(a_prompt(name=f"fox {i}"))
    connect = sqlite3.connect

    def connect_small(database: Any, **how: Any) -> sqlite3.Connection:
        """SQLite itself says that there is no space, when a file is to grow over so many pages."""
        db = connect(database, **how)
        if database != ":memory:":
            db.execute("PRAGMA max_page_count = 4")
        return db

    for path in (home / "cache").iterdir():
        path.unlink()
    monkeypatch.setattr(index.sqlite3, "connect", connect_small)
    for _ in range(2):
        assert set(names(library)) == {"fox 0", "fox 1", "fox 2"}
        assert sum(index_files(home).values()) == 0
    assert [notice for notice in said if "no space is left" in notice] == said
    assert len(said) == 1


def test_the_last_space_of_a_disk_is_not_for_the_index(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = list[str]()
    library = Library(say=said.append)
    library.save(a_prompt(name="fox"))
    assert names(library) == ["fox"]
    sizes = index_files(home)
    usage = shutil.disk_usage(home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=index.RESERVE - 1))
    library.save(a_prompt(name="lake"))
    assert set(names(library)) == {"fox", "lake"}
    assert index_files(home) == sizes
    assert len(said) == 1
    assert "are free in" in said[0]


def test_a_new_index_never_has_the_name_of_one_that_was_dropped(home: Path) -> None:
    """SQLite finds a database's log by its name: a program that has the old one open would remove the new one's."""
    library = Library()
    library.save(a_prompt(name="fox"))
    names(library)
    before = set(index_files(home))
    assert index.free_cache(home)
    assert not index.free_cache(home)
    assert names(library) == ["fox"]
    assert any(index_files(home).values())
    assert not before & set(index_files(home))


def test_entries_of_one_second_stand_in_the_order_in_which_they_were_saved() -> None:
    library = Library()
    saved = [library.save(a_prompt(name=f"fox {i}")) for i in range(12)]
    assert [listed.id for listed in library.list().entries] == [entry.id for entry in reversed(saved)]
    # what was saved when seconds were enough is read as ever, and comes before what came later in that second
    library.save(a_prompt(name="old", created=saved[0].prompt.created[:19] + "+00:00"))
    assert names(library)[-1] == "old"
