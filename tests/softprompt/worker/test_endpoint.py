"""Where the worker is met, and whose a run is: hostile folders, other hosts, dead and living holders."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from softprompt.errors import WorkerError
from softprompt.system.locks import leads_to, take
from softprompt.worker import leases
from softprompt.worker.endpoint import Endpoint, held
from softprompt.worker.leases import Holder, holder_of, is_free, newest, take_lease, unheard_for


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(tmp_path / "r"))
    return tmp_path / "r"


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_the_folder_is_private_under_any_umask(runtime: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Endpoint().prepare()
    finally:
        os.umask(before)
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    Endpoint().prepare()


def test_a_folder_that_others_could_reach_is_refused(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WorkerError, match="is a link"):
        Endpoint().prepare()
    runtime.unlink()
    runtime.write_text("")
    with pytest.raises(WorkerError, match="no folder"):
        Endpoint().prepare()
    runtime.unlink()
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    with pytest.raises(WorkerError, match=r"open to other users \(chmod 700 closes it\)"):
        Endpoint().prepare()
    runtime.chmod(0o700)
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    with pytest.raises(WorkerError, match="belongs to another user"):
        Endpoint().prepare()


def test_a_folder_that_another_user_made_first_is_refused(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        runtime.mkdir(mode=0o700)
        os.chown(runtime, 65534, 65534)
    else:  # only root can give a folder away, but there are folders of root's
        monkeypatch.setenv("SOFTPROMPT_RUNTIME", "/usr")
    with pytest.raises(WorkerError, match="belongs to another user, and will not be used") as refused:
        Endpoint().prepare()
    advice = re.search(r"`export SOFTPROMPT_RUNTIME=(\S+)`", str(refused.value))
    assert advice
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", advice[1])
    Endpoint().prepare()
    Path(advice[1]).rmdir()


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(tmp_path / ("x" * 90)))
    with pytest.raises(WorkerError, match="set SOFTPROMPT_RUNTIME to a shorter folder"):
        Endpoint().prepare()
    monkeypatch.delenv("SOFTPROMPT_RUNTIME")
    assert len(os.fsencode(Endpoint().socket)) < 108


def test_a_lock_is_held_once_and_freed_by_the_death_of_its_holder(runtime: Path) -> None:
    place = Endpoint()
    place.prepare()
    code = f"import sys; sys.path[:] = {sys.path!r}; from softprompt.worker.endpoint import *; print(take(Place().start_lock) is not None, flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert take(place.start_lock) is None
    with pytest.raises(WorkerError, match="has been starting the worker"), held(place.start_lock, 0.1):
        pass
    holder.kill()
    holder.communicate()
    with held(place.start_lock, 1):
        assert take(place.start_lock) is None
    descriptor = take(place.start_lock)
    assert descriptor is not None
    assert leads_to(place.start_lock, descriptor)
    place.start_lock.unlink()
    assert not leads_to(place.start_lock, descriptor)
    os.close(descriptor)


def plant(folder: Path, holder: Holder) -> None:
    (folder / f"lease.{newest(folder) + 1}").write_text(json.dumps(asdict(holder)))


def dead(holder: Holder) -> Holder:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(holder, pid=child.pid, started="1")


def test_a_run_is_free_when_its_holder_is_seen_to_be_gone(tmp_path: Path) -> None:
    me = Holder.me()
    assert holder_of(tmp_path) is None
    assert not is_free(tmp_path)
    plant(tmp_path, dead(me))
    assert is_free(tmp_path)
    plant(tmp_path, replace(me, pid=os.getppid(), started=leases.started(os.getppid())))
    assert not is_free(tmp_path)
    plant(tmp_path, replace(me, pid=os.getppid(), started="1"))  # the number was given to another process since
    assert is_free(tmp_path)


@pytest.mark.parametrize("change", [{"boot": "another start"}, {"pids": "pid:[1]"}])
def test_a_holder_of_this_hosts_name_that_cannot_be_seen_counts_as_gone_only_when_unheard_of_for_long(
    tmp_path: Path, change: dict[str, str]
) -> None:
    plant(tmp_path, replace(dead(Holder.me()), **change))  # type: ignore[arg-type]
    assert not is_free(tmp_path)
    os.utime(tmp_path / "lease.1", (0, 0))
    assert is_free(tmp_path)


def test_another_hosts_run_is_never_taken_unasked(tmp_path: Path) -> None:
    plant(tmp_path, replace(Holder.me(), host=f"not-{socket.gethostname()}"))
    os.utime(tmp_path / "lease.1", (0, 0))
    assert not is_free(tmp_path)
    assert unheard_for(tmp_path) > leases.UNHEARD


def test_of_two_that_take_a_run_one_gets_it_and_the_other_learns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take_lease(tmp_path)
    assert first is not None
    assert first.is_ours()
    monkeypatch.setattr(leases, "newest", lambda _: 0)  # both have seen the same
    assert take_lease(tmp_path) is None
    monkeypatch.undo()
    second = take_lease(tmp_path)
    assert second is not None
    assert (first.is_ours(), second.is_ours()) == (False, True)
    os.utime(tmp_path / "lease.2", (0, 0))
    second.renew()
    assert unheard_for(tmp_path) < 60


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"host": 1}', "[" * 5000, '{"host":"a","boot":"b","pids":"c","pid":"x","started":"s"}']
)
def test_a_lease_that_is_not_readable_is_nobodys_and_not_free(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease.1").write_text(text)
    assert holder_of(tmp_path) is None
    assert not is_free(tmp_path)
