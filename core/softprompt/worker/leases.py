"""Whose a run is: a file in its folder, so that a home shared by several hosts never trains one run twice.

Each holder's lease is a file `lease.<n>` made without replacing, n counting up: making it is taking it, and who finds a higher
number than his own has lost the run.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from softprompt.files import write_new

UNHEARD = 120.0  # seconds without a sign of life after which another host's run may be taken over, when asked to
_NAME = re.compile(r"lease\.(\d{1,9})")


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
        return cls(socket.gethostname(), _boot(), _pids(), os.getpid(), started(os.getpid()))

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
    return max((int(match[1]) for match in (_NAME.fullmatch(path.name) for path in folder.iterdir()) if match), default=0)


def holder_of(folder: Path) -> Holder | None:
    """Who holds the run; None where nobody does, or its lease is not readable."""
    try:
        values = json.loads((folder / f"lease.{newest(folder)}").read_bytes()[:4096])
        return Holder(str(values["host"]), str(values["boot"]), str(values["pids"]), int(values["pid"]), str(values["started"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def take_lease(folder: Path) -> Lease | None:
    """Takes the run, whoever held it; None where another process was quicker. The caller has asked `holder_of` first."""
    number = newest(folder) + 1
    try:
        write_new(folder / f"lease.{number}", json.dumps(asdict(Holder.me())).encode())
    except FileExistsError:
        return None
    return Lease(folder, number)


def is_free(folder: Path) -> bool:
    """Whether a process of this host may take the run unasked: its holder is gone, or is this one.

    A holder of this host's name that cannot be seen, since the host was started again or it is in another container, is gone when it has
    not been heard of for long.
    """
    holder = holder_of(folder)
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


def unheard_for(folder: Path) -> float:
    """Seconds since the newest lease was renewed, by the clock of the disk it lies on: hosts' clocks differ."""
    probe = folder / f".{secrets.token_hex(8)}.partial"
    probe.touch(mode=0o600, exist_ok=False)
    try:
        return probe.stat().st_mtime - (folder / f"lease.{newest(folder)}").stat().st_mtime
    except FileNotFoundError:
        return float("inf")
    finally:
        probe.unlink(missing_ok=True)


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # no Linux: a process of the same number and start time is the same one
        return ""


def _pids() -> str:
    """The namespace in which processes are numbered."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def started(pid: int) -> str:
    """When a process began, in ticks since boot, "" where there is none; fields 3 and 22 of /proc/<pid>/stat (proc(5))."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]  # a killed process stays as a zombie until its parent looks
    except (OSError, IndexError):
        return ""
