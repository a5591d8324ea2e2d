"""The worker's endpoint and run leases: hostile folders, other hosts, dead and living holders."""

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
from softprompt.system.locks import is_path_of, try_lock
from softprompt.worker import leases
from softprompt.worker.endpoint import Endpoint, hold_lock
from softprompt.worker.leases import Holder, is_free, newest_lease, read_holder, seconds_since_heartbeat, take_lease


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


def test_a_folder_that_other_users_can_open_is_rejected(
    runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    runtime.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WorkerError, match="is a link"):
        Endpoint().prepare()
    runtime.unlink()
    runtime.write_text("")
    with pytest.raises(WorkerError, match="not a folder"):
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


def test_a_folder_that_another_user_created_first_is_rejected(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        runtime.mkdir(mode=0o700)
        os.chown(runtime, 65534, 65534)
    else:  # only root can give a folder away, but root owns some folders
        monkeypatch.setenv("SOFTPROMPT_RUNTIME", "/usr")
    with pytest.raises(WorkerError, match="belongs to another user, so it cannot be used") as raised:
        Endpoint().prepare()
    advice = re.search(r"`export SOFTPROMPT_RUNTIME=(\S+)`", str(raised.value))
    assert advice
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", advice[1])
    Endpoint().prepare()
    Path(advice[1]).rmdir()


def test_a_path_that_is_too_long_for_a_socket_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTPROMPT_RUNTIME", str(tmp_path / ("x" * 90)))
    with pytest.raises(WorkerError, match="set SOFTPROMPT_RUNTIME to a shorter folder"):
        Endpoint().prepare()
    monkeypatch.delenv("SOFTPROMPT_RUNTIME")
    assert len(os.fsencode(Endpoint().socket)) < 108


def test_only_one_process_holds_a_lock_and_its_death_frees_the_lock(runtime: Path) -> None:
    endpoint = Endpoint()
    endpoint.prepare()
    code = f"""
import sys
sys.path[:] = {sys.path!r}
from softprompt.system.locks import try_lock
from softprompt.worker.endpoint import Endpoint
print(try_lock(Endpoint().start_lock) is not None, flush=True)
input()
"""
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    assert try_lock(endpoint.start_lock) is None
    with pytest.raises(WorkerError, match="has been trying to start the worker"), hold_lock(endpoint.start_lock, 0.1):
        pass
    holder.kill()
    holder.communicate()
    with hold_lock(endpoint.start_lock, 1):
        assert try_lock(endpoint.start_lock) is None
    descriptor = try_lock(endpoint.start_lock)
    assert descriptor is not None
    assert is_path_of(endpoint.start_lock, descriptor)
    endpoint.start_lock.unlink()
    assert not is_path_of(endpoint.start_lock, descriptor)
    os.close(descriptor)


def plant_lease(folder: Path, holder: Holder) -> None:
    (folder / f"lease.{newest_lease(folder) + 1}").write_text(json.dumps(asdict(holder)))


def as_dead_process(holder: Holder) -> Holder:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return replace(holder, pid=child.pid, started="1")


def test_a_run_is_free_if_its_holder_is_dead(tmp_path: Path) -> None:
    me = Holder.this_process()
    assert read_holder(tmp_path) is None
    assert not is_free(tmp_path)
    plant_lease(tmp_path, as_dead_process(me))
    assert is_free(tmp_path)
    plant_lease(tmp_path, replace(me, pid=os.getppid(), started=leases.start_ticks(os.getppid())))
    assert not is_free(tmp_path)
    plant_lease(tmp_path, replace(me, pid=os.getppid(), started="1"))  # another process has this number now
    assert is_free(tmp_path)


@pytest.mark.parametrize("change", [{"boot": "another start"}, {"pids": "pid:[1]"}])
def test_an_invisible_holder_with_this_hosts_name_counts_as_dead_only_after_a_long_silence(
    tmp_path: Path, change: dict[str, str]
) -> None:
    plant_lease(tmp_path, replace(as_dead_process(Holder.this_process()), **change))  # type: ignore[arg-type]
    assert not is_free(tmp_path)
    os.utime(tmp_path / "lease.1", (0, 0))
    assert is_free(tmp_path)


def test_the_run_of_another_host_is_never_free(tmp_path: Path) -> None:
    plant_lease(tmp_path, replace(Holder.this_process(), host=f"not-{socket.gethostname()}"))
    os.utime(tmp_path / "lease.1", (0, 0))
    assert not is_free(tmp_path)
    assert seconds_since_heartbeat(tmp_path) > leases.TAKEOVER_SECONDS


def test_only_one_of_two_processes_takes_a_run_and_the_loser_notices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = take_lease(tmp_path)
    assert first is not None
    assert first.is_current()
    monkeypatch.setattr(leases, "newest_lease", lambda _: 0)  # both have seen the same lease
    assert take_lease(tmp_path) is None
    monkeypatch.undo()
    second = take_lease(tmp_path)
    assert second is not None
    assert (first.is_current(), second.is_current()) == (False, True)
    os.utime(tmp_path / "lease.2", (0, 0))
    second.renew()
    assert seconds_since_heartbeat(tmp_path) < 60


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"host": 1}', "[" * 5000, '{"host":"a","boot":"b","pids":"c","pid":"x","started":"s"}']
)
def test_an_unreadable_lease_has_no_holder_and_is_not_free(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease.1").write_text(text)
    assert read_holder(tmp_path) is None
    assert not is_free(tmp_path)
