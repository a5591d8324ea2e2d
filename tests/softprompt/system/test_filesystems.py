"""File systems without modes, hard links, locks or synced folders, and full disks."""

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
from softprompt.system.paths import INDEX_NAME
from softprompt.worker.endpoint import Endpoint, hold_lock
from softprompt.worker.log import StreamLog, log_path
from softprompt.worker.run_folder import EVENTS, RunFolder, runs_folder
from softprompt_tui.state import settings
from tests.library_model import a_prompt

UNSUPPORTED = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL)  # of FUSE; vfat and CIFS; others; 9p


def entry_names(library: Library) -> list[str]:
    return [entry.name for entry in library.list().entries]


# missing features


@contextmanager
def failing_calls(error: int, *calls: str) -> Iterator[None]:
    """Let these functions of `os` fail, as on a limited file system."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(error, os.strerror(error))

    with pytest.MonkeyPatch.context() as patch:
        for call in calls:
            patch.setattr(os, call, refuse)
        yield


@pytest.mark.parametrize("error", UNSUPPORTED, ids=lambda error: errno.errorcode[error])
def test_everything_is_saved_without_modes_links_and_synced_folders(
    error: int, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(tmp_path / "r"))
    with failing_calls(error, "chmod", "fchmod", "link", "fsync"):
        library = Library()
        library.save(a_prompt(name="fox"))
        library.rename("fox", "wolf")
        library.delete(library.save(a_prompt(name="lake")).id)
        library.purge()
        library.back_up(tmp_path / "backup.zip")
        _, run = RunFolder.create(runs_folder(), TrainJob("a red fox"), 1.0)
        RunFolder(runs_folder() / run.id).append({"event": "paused"})
        settings.save(settings.Settings(prompt="a blue whale"))
        Endpoint().prepare()
    assert entry_names(library) == ["wolf"]
    assert library.check().damaged == []
    assert RunFolder(runs_folder() / run.id).read().state == "paused"
    assert settings.load()[0].prompt == "a blue whale"
    assert {path.stat().st_mode & 0o077 for path in [home, *home.rglob("*")]} == {0}  # created as private


def test_worker_log_needs_no_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    with failing_calls(errno.ENOSYS, "chmod", "fchmod"):
        StreamLog().close()
    assert log_path().exists()


def test_library_open_to_others_gives_one_notice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount can show every file as 0755, whatever its mode."""
    touch, notices = Path.touch, list[str]()
    monkeypatch.setattr(
        Path, "touch", lambda path, mode=0o666, exist_ok=True: (touch(path, mode, exist_ok), path.chmod(0o755))
    )
    library = Library(notify=notices.append)
    library.save(a_prompt(name="fox"))
    library.save(a_prompt(name="lake"))
    assert notices == [
        f"other users may be able to read {home}/data/library, because its file system does not store permissions"
    ]


def test_missing_locks_error_suggests_a_local_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(WorkerError, match=r"No locks available.*SOFTPROMPT_RUNTIME to a folder on a local disk"),
        hold_lock(tmp_path / "lock", 1),
    ):
        pass


# full disks


def index_files(home: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (home / "cache").iterdir() if INDEX_NAME.fullmatch(path.name)}


@pytest.fixture
def full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: nothing can be written until the index is deleted."""
    write = os.write

    def write_or_fail(descriptor: int, data: bytes) -> int:
        if any(index_files(home).values()):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", write_or_fail)


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


@pytest.mark.parametrize("kind", WRITES)
def test_index_is_deleted_if_a_write_needs_its_space(
    kind: str, home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    library = Library()
    library.save(a_prompt(name="fox"))
    RunFolder.create(runs_folder(), TrainJob("a red fox"), 1.0)
    assert entry_names(library) == ["fox"]
    assert any(index_files(home).values())
    request.getfixturevalue("full_disk")
    WRITES[kind](library, home)
    monkeypatch.undo()
    monkeypatch.setenv("SOFTPROMPT_HOME", str(home))
    expected = {"a training": {"fox", "new"}, "a change": {"wolf"}, "rm": set()}
    assert set(entry_names(library)) == expected.get(kind, {"fox"})


def test_error_if_no_space_can_be_freed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    library = Library()
    library.save(a_prompt(name="fox"))
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(HomeError, match=r"Disk quota exceeded.*Nothing was saved"):
        library.save(a_prompt(name="new"))
    assert entry_names(library) == ["fox"]


def test_partly_written_event_is_ignored(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a disk fills up during a write, the write only returns a smaller number of bytes."""
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


def test_index_without_space_is_dropped_and_entries_are_read_directly(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices = list[str]()
    library = Library(notify=notices.append)
    for i in range(3):
        library.save(a_prompt(name=f"fox {i}"))
    connect = sqlite3.connect

    def connect_small(database: Any, **options: Any) -> sqlite3.Connection:
        """Limit the pages, so that SQLite reports a full disk."""
        db = connect(database, **options)
        if database != ":memory:":
            db.execute("PRAGMA max_page_count = 4")
        return db

    for path in (home / "cache").iterdir():
        path.unlink()
    monkeypatch.setattr(index.sqlite3, "connect", connect_small)
    for _ in range(2):
        assert set(entry_names(library)) == {"fox 0", "fox 1", "fox 2"}
        assert sum(index_files(home).values()) == 0
    assert [notice for notice in notices if "no space is left" in notice] == notices
    assert len(notices) == 1


def test_index_leaves_the_reserved_space_free(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notices = list[str]()
    library = Library(notify=notices.append)
    library.save(a_prompt(name="fox"))
    assert entry_names(library) == ["fox"]
    sizes = index_files(home)
    usage = shutil.disk_usage(home)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=index.RESERVE_BYTES - 1))
    library.save(a_prompt(name="lake"))
    assert set(entry_names(library)) == {"fox", "lake"}
    assert index_files(home) == sizes
    assert len(notices) == 1
    assert "is free in" in notices[0]


def test_new_index_never_reuses_the_name_of_a_dropped_one(home: Path) -> None:
    """SQLite finds the log of a database by name: a program with the old index open would remove the new log."""
    library = Library()
    library.save(a_prompt(name="fox"))
    entry_names(library)
    before = set(index_files(home))
    assert index.free_cache(home)
    assert not index.free_cache(home)
    assert entry_names(library) == ["fox"]
    assert any(index_files(home).values())
    assert not before & set(index_files(home))


def test_entries_of_one_second_are_listed_newest_first() -> None:
    library = Library()
    saved = [library.save(a_prompt(name=f"fox {i}")) for i in range(12)]
    assert [entry.id for entry in library.list().entries] == [entry.id for entry in reversed(saved)]
    # an old entry, saved with whole seconds, sorts before the others of its second
    library.save(a_prompt(name="old", created=saved[0].prompt.created[:19] + "+00:00"))
    assert entry_names(library)[-1] == "old"
