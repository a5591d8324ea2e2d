"""Run ownership. Leases ensure that hosts that share a data folder never train the same run twice.

A lease is a file `lease.<n>` in the run's folder. The process that creates the file with the next number owns the run.
A process that sees a higher number than its own has lost the run. Leases are never deleted, so the numbers only go up.

The first lease shows on which host a run is waiting. A host takes another lease only to train or change the run. To
show that it is alive, a host updates a single heartbeat file next to the run folders, however many runs are waiting.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from softprompt.system.files import read_file, write_new

TAKEOVER_SECONDS = 120.0  # silence after which a user may take over another host's run
MAX_LEASE_BYTES = 4096
_LEASE_NAME = re.compile(r"lease\.(\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease.

    `boot` distinguishes boots of a host, `pids` containers, and `started` processes that reuse a process id.
    """

    host: str
    boot: str
    pids: str
    pid: int
    started: str

    @classmethod
    def this_process(cls) -> Holder:
        return cls(socket.gethostname(), _boot_id(), _pid_namespace(), os.getpid(), _cached_start_ticks(os.getpid()))

    def is_alive(self) -> bool | None:
        """Return whether the process is still running, or None if this process cannot tell.

        It cannot tell if the holder is on another host or in another PID namespace, or if the host has rebooted since.
        """
        if (self.host, self.boot, self.pids) != (socket.gethostname(), _boot_id(), _pid_namespace()):
            return None
        return self.started == start_ticks(self.pid) != ""


class Lease:
    """This process's lease on the run in `folder`."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number

    def is_current(self) -> bool:
        """Return whether this is the newest lease: False once another process has taken over the run."""
        return newest_lease(self.folder) == self.number

    def renew(self) -> None:
        os.utime(self.folder / f"lease.{self.number}")


def newest_lease(folder: Path) -> int:
    """Return the number of the newest lease in a run's folder, or 0 if there is none."""
    with os.scandir(folder) as entries:
        return max(
            (int(match[1]) for match in (_LEASE_NAME.fullmatch(entry.name) for entry in entries) if match), default=0
        )


def read_holder(folder: Path, number: int | None = None) -> Holder | None:
    """Return the holder of lease `number` (default: the newest), or None if the lease is missing or unreadable."""
    try:
        number = newest_lease(folder) if number is None else number
        values = json.loads(read_file(f"{folder}/lease.{number}", MAX_LEASE_BYTES))
        return Holder(
            str(values["host"]), str(values["boot"]), str(values["pids"]), int(values["pid"]), str(values["started"])
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def take_lease(folder: Path, seen: int | None = None) -> Lease | None:
    """Take over the run, no matter who owns it. Return None if another process was faster.

    Args:
        seen: the newest lease number when the caller decided to take the run. Default: the newest now.
    """
    number = (newest_lease(folder) if seen is None else seen) + 1
    try:
        write_new(folder / f"lease.{number}", json.dumps(asdict(Holder.this_process())).encode())
    except FileExistsError:
        return None
    return Lease(folder, number)


def is_free(folder: Path, number: int | None = None) -> bool:
    """Return whether this host may take the run without asking the user: its holder is dead or is this process.

    A process of this host from an earlier boot or in another container is not visible here. It counts as dead once it
    has been silent for `TAKEOVER_SECONDS`.
    """
    holder = read_holder(folder, number)
    if holder is None:
        return False
    is_alive = holder.is_alive()
    if is_alive is None and holder.host == socket.gethostname():
        try:
            return seconds_since_heartbeat(folder) >= TAKEOVER_SECONDS
        except OSError:  # training needs a folder that can be written to
            return False
    return is_alive is False or holder == Holder.this_process()


def is_on_this_host(folder: Path) -> bool:
    """Return whether the run is on this host: its holder is alive here, or this host may take it over right away."""
    holder = read_holder(folder)
    return holder is not None and (holder.is_alive() is True or is_free(folder))


def write_heartbeat(runs: Path) -> None:
    """Show other hosts that this worker, which owns all runs waiting on this host, is alive. Raises OSError."""
    _heartbeat_path(runs, Holder.this_process()).touch(mode=0o600)


def seconds_since_heartbeat(folder: Path) -> float:
    """Return how many seconds a run's holder has been silent.

    The times come from the file system that holds the run, because clocks differ between hosts.
    """
    number = newest_lease(folder)
    holder = read_holder(folder, number)
    latest = float("-inf")
    for path in (folder / f"lease.{number}", *([_heartbeat_path(folder.parent, holder)] if holder else ())):
        with suppress(FileNotFoundError):
            latest = max(latest, path.lstat().st_mtime)
    probe = folder / f".{secrets.token_hex(8)}.partial"
    probe.touch(mode=0o600, exist_ok=False)
    try:
        return probe.stat().st_mtime - latest
    finally:
        probe.unlink(missing_ok=True)


def _heartbeat_path(runs: Path, holder: Holder) -> Path:
    """Return the path of the heartbeat file for one boot of a host and one PID namespace."""
    key = hashlib.sha256(repr((holder.host, holder.boot, holder.pids)).encode("utf-8", "backslashreplace")).hexdigest()[
        :16
    ]
    return runs / f".worker-{key}"


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: boots cannot be told apart
        return ""


@cache
def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def start_ticks(pid: int) -> str:
    """Return when a process started, in ticks since boot, or "" if it is not running.

    Reads fields 3 and 22 of /proc/<pid>/stat; see proc(5).
    """
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
        finally:
            os.close(descriptor)
        # a killed process stays a zombie until its parent waits for it
        return "" if fields[0] in b"ZX" else fields[19].decode()
    except (OSError, IndexError):
        return ""


@cache
def _cached_start_ticks(pid: int) -> str:
    return start_ticks(pid)
