"""Whose a run is: a file in its folder, so that a home shared by several hosts never trains one run twice.

Each holder's lease is a file `lease.<n>` made without replacing, n counting up: making it is taking it, and who finds a higher
number than his own has lost the run. No lease is ever removed, so the numbers never go backwards.

A run's first lease says on which host it waits. Another one is taken only to train or change it, however many runs wait; that
their host is alive is told by one file for all of them, beside their folders.
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

UNHEARD = 120.0  # seconds without a sign of life after which another host's run may be taken over, when asked to
MAX_LEASE_BYTES = 4096
_NAME = re.compile(r"lease\.(\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class Holder:
    """A process on a host: `boot` tells two starts of the host apart, `pids` two containers, `started` two processes of one number."""

    host: str
    boot: str
    pids: str
    pid: int
    started: str

    @classmethod
    def me(cls) -> Holder:
        return cls(socket.gethostname(), _boot(), _pids(), os.getpid(), _own_start(os.getpid()))

    def lives(self) -> bool | None:
        """Whether that process runs; None where that cannot be seen from here."""
        if (self.host, self.boot, self.pids) != (socket.gethostname(), _boot(), _pids()):
            return None
        return self.started == started(self.pid) != ""


class Lease:
    """Lease number `number` of the run in `folder`, held by this process."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.number = number

    def is_ours(self) -> bool:
        """False once another process has taken the run."""
        return newest(self.folder) == self.number

    def renew(self) -> None:
        os.utime(self.folder / f"lease.{self.number}")


def newest(folder: Path) -> int:
    """The number of the newest lease in a run's folder, 0 where there is none."""
    with os.scandir(folder) as entries:
        return max((int(match[1]) for match in (_NAME.fullmatch(entry.name) for entry in entries) if match), default=0)


def holder_of(folder: Path, number: int | None = None) -> Holder | None:
    """Who holds the run, by its newest lease or that of a `number`; None where nobody does, or the lease is not readable."""
    try:
        number = newest(folder) if number is None else number
        values = json.loads(read_file(f"{folder}/lease.{number}", MAX_LEASE_BYTES))
        return Holder(
            str(values["host"]), str(values["boot"]), str(values["pids"]), int(values["pid"]), str(values["started"])
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def take_lease(folder: Path, seen: int | None = None) -> Lease | None:
    """Take the run, whoever held it; None where another process was quicker.

    Args:
        seen: the newest lease when the caller decided that it may take the run; the newest one now unless given.
    """
    number = (newest(folder) if seen is None else seen) + 1
    try:
        write_new(folder / f"lease.{number}", json.dumps(asdict(Holder.me())).encode())
    except FileExistsError:
        return None
    return Lease(folder, number)


def is_free(folder: Path, number: int | None = None) -> bool:
    """Whether a process of this host may take the run unasked: its holder is gone, or is this one.

    A holder of this host's name that cannot be seen, since the host was started again or it is in another container, is gone when it has
    not been heard of for long.
    """
    holder = holder_of(folder, number)
    if holder is None:
        return False
    lives = holder.lives()
    if lives is None and holder.host == socket.gethostname():
        try:
            return unheard_for(folder) >= UNHEARD
        except OSError:  # where nothing can be written, nothing can be trained
            return False
    return lives is False or holder == Holder.me()


def is_here(folder: Path) -> bool:
    """Whether a run is this host's to train: its holder lives here, or a process of this host may take it unasked."""
    holder = holder_of(folder)
    return holder is not None and (holder.lives() is True or is_free(folder))


def sign_of_life(runs: Path) -> None:
    """Tell other hosts that the worker of this one is there, for all the runs that wait here. Raises OSError."""
    _sign_of(runs, Holder.me()).touch(mode=0o600)


def unheard_for(folder: Path) -> float:
    """Seconds since the holder of a run was heard of, by the clock of the disk it lies on: hosts' clocks differ."""
    number = newest(folder)
    holder = holder_of(folder, number)
    heard = float("-inf")
    for path in (folder / f"lease.{number}", *([_sign_of(folder.parent, holder)] if holder else ())):
        with suppress(FileNotFoundError):
            heard = max(heard, path.lstat().st_mtime)
    probe = folder / f".{secrets.token_hex(8)}.partial"
    probe.touch(mode=0o600, exist_ok=False)
    try:
        return probe.stat().st_mtime - heard
    finally:
        probe.unlink(missing_ok=True)


def _sign_of(runs: Path, holder: Holder) -> Path:
    """The file that tells of a host's worker: of one start of the host, in one container."""
    key = hashlib.sha256(repr((holder.host, holder.boot, holder.pids)).encode("utf-8", "backslashreplace")).hexdigest()[
        :16
    ]
    return runs / f".worker-{key}"


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux: a process of the same number and start time is the same one
        return ""


@cache
def _pids() -> str:
    """The namespace in which processes are numbered."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process began, in ticks since boot, "" where there is none; fields 3 and 22 of /proc/<pid>/stat (proc(5))."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            fields = os.read(descriptor, 4096).rpartition(b")")[2].split()
        finally:
            os.close(descriptor)
        return (
            "" if fields[0] in b"ZX" else fields[19].decode()
        )  # a killed process stays as a zombie until its parent looks
    except (OSError, IndexError):
        return ""


@cache
def _own_start(pid: int) -> str:
    return started(pid)
