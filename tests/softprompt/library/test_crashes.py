"""The library under failures: killed processes, failing system calls, full disks, concurrency, hostile folders."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from softprompt import Library
from softprompt.errors import EntryDamaged, EntryNotFound, HomeError
from softprompt.system.files import PARTIAL_SUFFIX
from tests.benchmarks.library_crowd import run_crowd
from tests.benchmarks.library_kills import kill_once
from tests.library_model import OPS, ExpectedEntry, Step, a_prompt, read_entries

CALLS = ("open", "write", "fsync", "close", "link", "unlink", "fchmod", "rename", "mkdir", "chmod")


class Crash(BaseException):
    """The process is gone: no cleanup runs."""


@contextmanager
def failing_calls(
    number: int, error: BaseException, folder: str, only: str = "", for_good: bool = False
) -> Iterator[list[str]]:
    """Make the `number`th call (from 0) on `folder` fail, and with `for_good` all later ones. Yield the calls."""
    calls: list[str] = []
    real = {name: getattr(os, name) for name in CALLS}
    open_descriptors: set[int] = set()

    def wrap(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not (_leads_into(folder, args[0]) if isinstance(args[0], int) else folder in os.fspath(args[0])):
                return real[name](*args, **kwargs)
            is_counted = not only or name == only
            calls.extend([name] * is_counted)
            should_fail, has_failed = is_counted and len(calls) - 1 == number, for_good and len(calls) - 1 > number
            if name == "close" and not has_failed:  # a failing close still closes
                real["close"](*args)
                open_descriptors.discard(args[0])
            if should_fail or has_failed:
                raise error
            result = None if name == "close" else real[name](*args, **kwargs)
            if name == "open":
                open_descriptors.add(result)
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrap(name))
        yield calls
    for descriptor in open_descriptors:  # left open by a crash
        if _leads_into(folder, descriptor):
            os.close(descriptor)


def _leads_into(folder: str, descriptor: int) -> bool:
    try:
        return folder in os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return False


def _try_save(save: Callable[[], str]) -> tuple[str | None, str]:
    """Return the id and "", or None and the error message."""
    try:
        return save(), ""
    except HomeError as error:
        return None, str(error)


@pytest.mark.parametrize("call", CALLS)
def test_failing_system_call_in_save_changes_nothing_and_is_reported(call: str, home: Path) -> None:
    library = Library()
    old = library.save(a_prompt(name="old")).id
    before = read_entries(library)
    failed = 0
    for number in range(50):
        with failing_calls(number, OSError(errno.EIO, "Input/output error"), "/data/library", call) as calls:
            saved, error = _try_save(lambda: library.save(a_prompt(name="new")).id)
        failed += bool(error)
        assert saved or "Input/output error" in error
        entries = read_entries(library)
        leftovers = [path.name for path in library.entries.iterdir() if path.name.endswith(PARTIAL_SUFFIX)]
        assert entries.keys() == {old} | ({saved} - {None})
        assert entries[old] == before[old]
        assert leftovers == [] or call == "unlink"  # `scan` removes them later
        if saved:
            library.delete(saved)
            library.purge(saved)
        if number >= len(calls):  # save makes no more such calls
            assert saved
            break
        for name in leftovers:
            (library.entries / name).unlink()
    assert failed or call in ("unlink", "rename", "mkdir", "chmod")


def test_failed_fsync_is_not_retried_on_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        raise OSError(errno.EIO, "Input/output error")

    library = Library()
    library.prepare()
    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(3):
        with pytest.raises(HomeError, match="Nothing was saved"):
            library.save(a_prompt())
    assert len(synced) == len(set(synced)) == 3


def test_disk_full_at_any_kilobyte_changes_nothing() -> None:
    """A limit on the file size simulates a full disk: the write stops in the middle in the same way."""
    library = Library()
    library.save(a_prompt(name="old"))
    before, prompt = read_entries(library), a_prompt(name="new", hard_prompt="a lake " * 3000)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    index = library.index.run_query(lambda _: 0)  # writes the index before the disk is full
    failed = 0
    try:
        for kilobytes in range(64):
            resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, unlimited[1]))
            try:
                saved, error = _try_save(lambda: library.save(prompt).id)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            if saved:
                break
            failed += 1
            assert "Nothing was saved" in error
            assert read_entries(library) == before
            assert len(list(library.entries.iterdir())) == 1
    finally:
        signal.signal(signal.SIGXFSZ, handler)
    assert index == 0
    assert failed > 20
    assert len(read_entries(library)) == 2


def test_killed_processes_lose_no_acknowledged_change() -> None:
    library, model, chance = Library(), dict[str, ExpectedEntry](), random.Random(5)
    for i in range(25):
        model, _ = kill_once(library, i + 1, model, chance)
    assert library.check().damaged == []


def test_concurrent_processes_lose_nothing() -> None:
    reported, actual, shared_id = run_crowd(processes=4, operations=30)
    del actual[shared_id]
    assert actual == reported
    assert Library().revisions.revision_numbers(shared_id) == list(range(1, 2 + 4 * 3))


class CrashingLibrary(RuleBasedStateMachine):
    """Any sequence of changes, which can crash at any system call, compared with a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.home = Path(tempfile.mkdtemp(dir=Path(os.environ["SOFTPROMPT_HOME"]).parent))
        self.patch.setenv("SOFTPROMPT_HOME", str(self.home))
        self.model: dict[str, ExpectedEntry] = {}
        self.number = 0

    def teardown(self) -> None:
        self.patch.undo()

    def ids(self, trashed: bool) -> list[str]:
        return sorted(entry_id for entry_id, entry in self.model.items() if entry.trashed == trashed)

    @rule(op=st.sampled_from(OPS), which=st.integers(0, 9), crash_at=st.none() | st.integers(0, 30))
    def change(self, op: str, which: int, crash_at: int | None) -> None:
        ids = self.ids(trashed=op in ("restore", "purge"))
        if not ids and op != "save":
            return
        self.number += 1
        step = Step(op, "" if op == "save" else ids[which % len(ids)], self.number)
        library = Library()
        if crash_at is None:
            self.model = step.expected_after(self.model, step.apply(library))
            return
        crashed = True
        with failing_calls(crash_at, Crash(), "/data/library", for_good=True):
            try:
                entry_id = step.apply(library)
                crashed = False
            except Crash:
                pass
        entries = read_entries(Library())
        if crashed:
            assert step.allows(entries, self.model)
        else:
            assert entries == step.expected_after(self.model, entry_id)
        self.model = entries

    @precondition(lambda self: self.model)
    @rule()
    def lose_the_index(self) -> None:
        for path in (self.home / "cache").iterdir():
            path.unlink()

    @invariant()
    def matches_the_dict(self) -> None:
        assert read_entries(Library()) == self.model

    @invariant()
    def is_undamaged(self) -> None:
        report = Library().check()
        assert (report.damaged, report.unknown_files) == ([], [])


CrashingLibrary.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_changes_and_crashes_match_a_dict = CrashingLibrary.TestCase


def test_damaged_file_is_detected_and_other_entries_still_work() -> None:
    library = Library()
    bad = library.save(a_prompt(name="bad", warnings=()))
    library.save(a_prompt(name="good"))
    path = library.path(bad.id, 1)
    raw = path.read_bytes()
    for i in range(0, len(raw), 97):
        for broken in (raw[:i] + bytes([raw[i] ^ 0x20]) + raw[i + 1 :], raw[:i]):
            path.write_bytes(broken)
            with pytest.raises(EntryDamaged):
                library.revisions.read(bad.id, 1)
            assert [str(path) in str(error) for error in library.check().damaged] == [True]
            assert library.open("good").prompt.name == "good"
            assert "good" in [entry.name for entry in library.list().entries]


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_files_and_folders_are_private_under_any_umask(umask: int, home: Path, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        library = Library()
        entry = library.save(a_prompt(name="fox"))
        library.delete(library.tag("fox", ["red"]).id)
        library.back_up(tmp_path / "backup.zip")
        library.list()
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in [home, *home.rglob("*"), tmp_path / "backup.zip"]}
    assert {path: mode for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)} == {}
    assert len([path for path in modes if entry.id in path.name]) == 3


def test_planted_links_are_rejected(home: Path, tmp_path: Path) -> None:
    library = Library()
    entry = library.save(a_prompt(name="fox"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(library.path(entry.id, 1).read_bytes())
    library.path(entry.id, 2).symlink_to(elsewhere)
    with pytest.raises(EntryDamaged, match="cannot read"):
        library.open(entry.id)
    # nothing is written through a link
    library.path("ab" * 8, 1).symlink_to(tmp_path / "target")
    assert library.save(a_prompt(), id="cd" * 8).id == "cd" * 8
    assert not (tmp_path / "target").exists()
    assert {str(error).split("/")[-1][:16] for error in library.check().damaged} == {entry.id, "ab" * 8}


def test_pipes_folders_and_huge_files_do_not_block() -> None:
    library = Library()
    library.save(a_prompt(name="fox"))
    os.mkfifo(library.path("aa" * 8, 1))
    library.path("bb" * 8, 1).mkdir()
    with library.path("cc" * 8, 1).open("wb") as file:
        file.truncate(1 << 40)
    assert [entry.name for entry in library.list().entries] == ["fox"]
    assert len(library.list().damaged) == len(library.check().damaged) == 3


def test_file_with_the_name_of_another_entry_is_rejected() -> None:
    library = Library()
    entry = library.save(a_prompt(name="fox"))
    library.path("aa" * 8, 1).write_bytes(library.path(entry.id, 1).read_bytes())
    assert [listed.id for listed in library.list().entries] == [entry.id]
    assert "has the wrong name" in str(library.check().damaged[0])


def test_damaged_entry_can_be_deleted_or_restored_to_its_last_intact_revision() -> None:
    library = Library()
    entry = library.save(a_prompt(name="fox"))
    library.annotate("fox", "better")
    library.path(entry.id, 2).write_bytes(b"\xff" * 60)
    assert library.list().entries == []
    restored = library.restore(entry.id)
    assert (restored.prompt.name, restored.note, restored.revision) == ("fox", "", 3)
    library.path(entry.id, 3).write_bytes(b"\xff" * 60)
    library.delete(entry.id)
    assert library.list().damaged == []
    assert library.restore(entry.id).prompt.name == "fox"
    with pytest.raises(EntryNotFound):
        library.restore("no such")
