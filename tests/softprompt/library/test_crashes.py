"""The library when things go wrong: killed processes, failing system calls, full disks, crowds, hostile folders."""

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
from softprompt.system.files import PARTIAL
from tests.benchmarks.library_crowd import crowd
from tests.benchmarks.library_kills import killed_once
from tests.library_model import OPS, Kept, Step, a_prompt, found_in

CALLS = ("open", "write", "fsync", "close", "link", "unlink", "fchmod", "rename", "mkdir", "chmod")


class Crash(BaseException):
    """The process is gone: nothing that would tidy up runs."""


@contextmanager
def failing(
    number: int, error: BaseException, folder: str, only: str = "", for_good: bool = False
) -> Iterator[list[str]]:
    """The `number`th call (from 0) that touches `folder` fails, and with `for_good` all after it; yields the calls that were made."""
    made: list[str] = []
    real = {name: getattr(os, name) for name in CALLS}
    opened: set[int] = set()

    def wrapped(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not (_leads_into(folder, args[0]) if isinstance(args[0], int) else folder in os.fspath(args[0])):
                return real[name](*args, **kwargs)
            chosen = not only or name == only
            made.extend([name] * chosen)
            fails, over = chosen and len(made) - 1 == number, for_good and len(made) - 1 > number
            if name == "close" and not over:  # a close that fails has closed all the same
                real["close"](*args)
                opened.discard(args[0])
            if fails or over:
                raise error
            out = None if name == "close" else real[name](*args, **kwargs)
            if name == "open":
                opened.add(out)
            return out

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, wrapped(name))
        yield made
    for descriptor in opened:  # what a crash left open
        if _leads_into(folder, descriptor):
            os.close(descriptor)


def _leads_into(folder: str, descriptor: int) -> bool:
    try:
        return folder in os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115
    except OSError:
        return False


def _tried(save: Callable[[], str]) -> tuple[str | None, str]:
    """(the id, "") or (None, what the error said)."""
    try:
        return save(), ""
    except HomeError as error:
        return None, str(error)


@pytest.mark.parametrize("call", CALLS)
def test_each_system_call_of_a_save_that_fails_leaves_all_as_it_was_and_says_so(call: str, home: Path) -> None:
    library = Library()
    kept = library.save(a_prompt(name="old")).id
    before = found_in(library)
    refused = 0
    for number in range(50):
        with failing(number, OSError(errno.EIO, "Input/output error"), "/data/library", call) as made:
            saved, said = _tried(lambda: library.save(a_prompt(name="new")).id)
        refused += bool(said)
        assert saved or "Input/output error" in said
        found = found_in(library)
        litter = [path.name for path in library.entries.iterdir() if path.name.endswith(PARTIAL)]
        assert found.keys() == {kept} | ({saved} - {None})
        assert found[kept] == before[kept]
        assert litter == [] or call == "unlink"  # what cannot be unlinked is swept one day
        if saved:
            library.delete(saved)
            library.purge(saved)
        if number >= len(made):  # there was no such call any more
            assert saved
            break
        for one in litter:
            (library.entries / one).unlink()
    assert refused or call in ("unlink", "rename", "mkdir", "chmod")


def test_a_sync_that_fails_is_not_tried_again_on_the_same_file(monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115
        raise OSError(errno.EIO, "Input/output error")

    library = Library()
    library.prepare()
    monkeypatch.setattr(os, "fsync", fsync)
    for _ in range(3):
        with pytest.raises(HomeError, match="nothing was saved"):
            library.save(a_prompt())
    assert len(synced) == len(set(synced)) == 3


def test_a_disk_full_at_any_kilobyte_leaves_all_as_it_was() -> None:
    """The limit of a file's size stands for the disk's: the write stops in the middle in the same way."""
    library = Library()
    library.save(a_prompt(name="old"))
    before, prompt = found_in(library), a_prompt(name="new", hard_prompt="a lake " * 3000)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    index = library.index.ask(lambda _: 0)  # the index is written before: it is not what is full here
    refused = 0
    try:
        for kilobytes in range(64):
            resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, unlimited[1]))
            try:
                saved, said = _tried(lambda: library.save(prompt).id)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            if saved:
                break
            refused += 1
            assert "nothing was saved" in said
            assert found_in(library) == before
            assert len(list(library.entries.iterdir())) == 1
    finally:
        signal.signal(signal.SIGXFSZ, handler)
    assert index == 0
    assert refused > 20
    assert len(found_in(library)) == 2


def test_processes_killed_at_any_moment_lose_nothing_that_was_acknowledged() -> None:
    library, model, chance = Library(), dict[str, Kept](), random.Random(5)
    for i in range(25):
        model, _ = killed_once(library, i + 1, model, chance)
    assert library.check().damaged == []


def test_a_crowd_of_processes_loses_nothing() -> None:
    said, found, shared = crowd(processes=4, operations=30)
    del found[shared]
    assert found == said
    assert Library().revisions.numbers(shared) == list(range(1, 2 + 4 * 3))


class ALibraryThatCrashes(RuleBasedStateMachine):
    """Any sequence of changes, each perhaps cut off at any system call, against a plain dict."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.home = Path(tempfile.mkdtemp(dir=Path(os.environ["SOFTPROMPT_HOME"]).parent))
        self.patch.setenv("SOFTPROMPT_HOME", str(self.home))
        self.model: dict[str, Kept] = {}
        self.number = 0

    def teardown(self) -> None:
        self.patch.undo()

    def ids(self, trashed: bool) -> list[str]:
        return sorted(one for one, kept in self.model.items() if kept.trashed == trashed)

    @rule(op=st.sampled_from(OPS), which=st.integers(0, 9), crash_at=st.none() | st.integers(0, 30))
    def change(self, op: str, which: int, crash_at: int | None) -> None:
        ids = self.ids(trashed=op in ("restore", "purge"))
        if not ids and op != "save":
            return
        self.number += 1
        step = Step(op, "" if op == "save" else ids[which % len(ids)], self.number)
        library = Library()
        if crash_at is None:
            self.model = step.done(self.model, step.do(library))
            return
        crashed = True
        with failing(crash_at, Crash(), "/data/library", for_good=True):
            try:
                made = step.do(library)
                crashed = False
            except Crash:
                pass
        found = found_in(Library())
        if crashed:
            assert step.agrees(found, self.model)
        else:
            assert found == step.done(self.model, made)
        self.model = found

    @precondition(lambda self: self.model)
    @rule()
    def lose_the_index(self) -> None:
        for path in (self.home / "cache").iterdir():
            path.unlink()

    @invariant()
    def is_as_the_dict_says(self) -> None:
        assert found_in(Library()) == self.model

    @invariant()
    def every_byte_is_whole(self) -> None:
        done = Library().check()
        assert (done.damaged, done.strangers) == ([], [])


ALibraryThatCrashes.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_any_sequence_of_changes_and_crashes_is_what_a_dict_says = ALibraryThatCrashes.TestCase


def test_every_changed_byte_and_every_cut_is_noticed_and_the_rest_still_lists() -> None:
    library = Library()
    entry = library.save(a_prompt(name="bad", warnings=()))
    library.save(a_prompt(name="good"))
    path = library.path(entry.id, 1)
    raw = path.read_bytes()
    for i in range(0, len(raw), 97):
        for broken in (raw[:i] + bytes([raw[i] ^ 0x20]) + raw[i + 1 :], raw[:i]):
            path.write_bytes(broken)
            with pytest.raises(EntryDamaged):
                library.revisions.read(entry.id, 1)
            assert [str(path) in str(error) for error in library.check().damaged] == [True]
            assert library.open("good").prompt.name == "good"
            assert "good" in [one.name for one in library.list().entries]


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


def test_planted_links_are_refused(home: Path, tmp_path: Path) -> None:
    library = Library()
    entry = library.save(a_prompt(name="fox"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(library.path(entry.id, 1).read_bytes())
    library.path(entry.id, 2).symlink_to(elsewhere)
    with pytest.raises(EntryDamaged, match="cannot be read"):
        library.open(entry.id)
    # a change goes on the next number, and nothing is written through the link
    library.path("ab" * 8, 1).symlink_to(tmp_path / "target")
    assert library.save(a_prompt(), id="cd" * 8).id == "cd" * 8
    assert not (tmp_path / "target").exists()
    assert {str(error).split("/")[-1][:16] for error in library.check().damaged} == {entry.id, "ab" * 8}


def test_pipes_and_folders_and_giants_in_an_entrys_place_hold_nobody_up() -> None:
    library = Library()
    library.save(a_prompt(name="fox"))
    os.mkfifo(library.path("aa" * 8, 1))
    library.path("bb" * 8, 1).mkdir()
    with library.path("cc" * 8, 1).open("wb") as file:
        file.truncate(1 << 40)
    assert [one.name for one in library.list().entries] == ["fox"]
    assert len(library.list().damaged) == len(library.check().damaged) == 3


def test_a_file_under_another_entrys_name_is_refused() -> None:
    library = Library()
    entry = library.save(a_prompt(name="fox"))
    library.path("aa" * 8, 1).write_bytes(library.path(entry.id, 1).read_bytes())
    assert [one.id for one in library.list().entries] == [entry.id]
    assert "is not where it belongs" in str(library.check().damaged[0])


def test_a_damaged_entry_is_put_away_or_brought_back_to_its_last_whole_revision() -> None:
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
