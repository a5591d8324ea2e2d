"""Choose how many CPU threads a run uses, and limit how long threads spin. Nothing here imports torch.

The number is chosen once, when a run starts, because the bits of a training depend on it. Measured on two cores with
`mini`, in ms per step: one training takes 24 with one thread and 19 with two. Beside another training it takes 24 with
one thread each, and 79 with two each (or far more, if threads spin without limit). So a second thread gains a fifth if
a core is free, and costs a factor of three if none is.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

SPIN_VARIABLE, SPIN_COUNT = "GOMP_SPINCOUNT", "8000"
POLICY_VARIABLE = "OMP_WAIT_POLICY"

# The work in a step, positions x width x width, from which one more thread pays off.
# Measured with `mini` (width 256): 4 positions take as long with two threads as with one, 9 positions .93 of the time,
# 30 positions .82, 55 positions .74, 240 positions .61.
WORK_PER_THREAD = 1 << 20
# the same if threads spin without limit: a program that starts later can then make a small step 20 times as slow
WORK_PER_SPINNING_THREAD = 1 << 24
SAMPLE_SECONDS = 0.03
PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")

_running: dict[int, int] = {}  # the threads of each run of this process, by the id of the Python thread that runs it
_spin_is_limited = False  # whether `spin_limited` limited the spin when torch was loaded
_is_forked = False  # from a process that had loaded torch


def limit_openmp_spin() -> None:
    """Let OpenMP threads spin only briefly before they sleep, unless the user has set a wait policy.

    Call this before importing torch. A step runs about a hundred short parallel regions, and by default threads spin
    between them. If another program needs a core, a spinning thread can block the very thread it is waiting for.
    Measured on two cores: by default, two concurrent training runs took 100 times as long as one; with this limit, 3
    times (64 prompts) to 7 times (one prompt). A single run is as fast as before. With 3,000 spins, two concurrent runs
    take a fifth less time for 64 prompts and half the time for one prompt, but a single run takes a fifth longer.
    """
    if POLICY_VARIABLE not in os.environ:
        os.environ.setdefault(SPIN_VARIABLE, SPIN_COUNT)


@contextmanager
def spin_limited() -> Iterator[None]:
    """Limit the spin if torch is first imported inside this block, and leave the environment as it was.

    For use as a library: the caller's own child processes must not inherit the variable.
    """
    global _spin_is_limited
    if "torch" in sys.modules:
        yield
        return
    before = os.environ.get(SPIN_VARIABLE)
    limit_openmp_spin()
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(SPIN_VARIABLE, None)
        _spin_is_limited |= "torch" in sys.modules and POLICY_VARIABLE not in os.environ


def choose_threads(limit: int, work: int) -> int:
    """Return the number of threads for a run that starts now, at least 1.

    Args:
        limit: the most threads to use. Callers pass torch's number, so that OMP_NUM_THREADS and torch.set_num_threads
            keep their meaning, and 1 gives the same bits at every load.
        work: the size of a step: positions x width x width.
    """
    most = min(limit, cores(), work // (WORK_PER_THREAD if _spins_briefly() else WORK_PER_SPINNING_THREAD))
    if most < 2 or _is_forked:
        return 1
    with running(1):  # so that runs that start in other threads at the same moment count this one
        return max(1, min(most, round(_free_cores())))


def kept_threads(count: int) -> int:
    """Return the number of threads for a resumed run: `count`, unless this process cannot use as many."""
    return 1 if _is_forked else max(1, min(count, cores()))


def is_forked() -> bool:
    """Return whether this process was forked from one that had loaded torch.

    OpenMP's threads do not exist in the child, but OpenMP waits for them: more than one thread would hang forever.
    """
    return _is_forked


def cores() -> int:
    """Return the number of cores that this process may use: its affinity, cut to the CPU quota of its cgroups."""
    return max(1, min([len(_affinity()), *(int(quota.cores + 0.5) for quota in _quotas())]))


@contextmanager
def running(count: int) -> Iterator[None]:
    """Register a run with this many threads while the block runs, so that runs that start in other threads count it.

    The kernel's count misses such runs: of four Python threads that start at once, three wait for the interpreter's
    lock.
    """
    me = threading.get_ident()
    before = _running.get(me)
    _running[me] = count
    try:
        yield
    finally:
        if before is None:
            _running.pop(me, None)
        else:
            _running[me] = before


def _spins_briefly() -> bool:
    passive = os.environ.get(POLICY_VARIABLE, "").lower() == "passive"
    return passive or _spin_is_limited or SPIN_VARIABLE in os.environ


def _free_cores() -> float:
    """Return how many cores this thread could use, itself included, beside everything else that runs now.

    Watches for SAMPLE_SECONDS. This thread computes in the meantime, so programs that start together see each other.
    """
    others = sum(count for thread, count in list(_running.items()) if thread != threading.get_ident())
    free = [float(cores()) - others]
    quotas = list(_quotas())
    is_pinned = len(_affinity()) < (os.cpu_count() or 1)
    if is_pinned:  # the count of runnable threads is that of the whole machine
        quotas.append(_Quota(len(_affinity()), _affinity_seconds))
    before = [quota.used_seconds() for quota in quotas]
    counts: list[float] = []
    started_at, own_started_at = time.perf_counter(), time.thread_time()
    while (elapsed := time.perf_counter() - started_at) < SAMPLE_SECONDS:
        if not is_pinned and (count := _runnable()) is not None:
            counts.append(count)
    own = time.thread_time() - own_started_at
    for quota, start in zip(quotas, before, strict=True):
        free.append(quota.cores - (quota.used_seconds() - start - own) / elapsed)
    if counts:
        free.append((os.cpu_count() or 1) - (sum(counts) / len(counts) - 1))
    return min(free)


def _runnable() -> float | None:
    """Return how many threads of this machine are running or waiting for a core, this one included."""
    try:
        return float((PROC / "loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.getloadavg()[0] + 1  # of the last minute, so this thread hardly counts
    except (OSError, AttributeError):
        return None


def _affinity() -> set[int]:
    try:
        return os.sched_getaffinity(0)
    except (OSError, AttributeError):  # not Linux
        return set(range(os.cpu_count() or 1))


def _affinity_seconds() -> float:
    """Return the processor seconds that this process's cores have been busy."""
    affinity, ticks = _affinity(), 0
    with suppress(OSError, ValueError):
        for line in (PROC / "stat").read_text().splitlines():
            name, *values = line.split()
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in affinity:
                user, nice, system, _idle, _wait, interrupts, soft_interrupts, stolen = map(int, values[:8])
                ticks += user + nice + system + interrupts + soft_interrupts + stolen
        return ticks / os.sysconf("SC_CLK_TCK")
    return 0.0


@dataclass(frozen=True)
class _Quota:
    """Cores that a group of processes shares, and a function that returns the processor seconds it has used."""

    cores: float
    used_seconds: Callable[[], float]


def _quotas() -> Iterator[_Quota]:
    """Yield the CPU quotas of this process's cgroup and of the cgroups around it, of version 1 and 2."""
    with suppress(OSError, ValueError):  # no cgroups, or a line in an unknown form
        for line in (PROC / "self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = CGROUPS / "cpu" if controllers else CGROUPS
            # in a container the path can be that of the host, but the files of its own cgroup are always in the root
            folder = root.joinpath(*(part for part in Path(path).parts if part not in ("/", "..")))
            for place in (folder, *folder.parents[: len(folder.parts) - len(root.parts)]):
                with suppress(OSError, ValueError):
                    yield _read_quota(place, bool(controllers))


def _read_quota(folder: Path, is_version_1: bool) -> _Quota:
    """Read a cgroup's quota. Raises OSError or ValueError if it has none."""

    def number(name: str, word: int = 0) -> int:
        return int((folder / name).read_text().split()[word])

    def used_seconds() -> float:
        with suppress(OSError, ValueError, IndexError):
            return number("cpuacct.usage") / 1e9 if is_version_1 else number("cpu.stat", 1) / 1e6
        return 0.0

    if is_version_1:
        quota, period = number("cpu.cfs_quota_us"), number("cpu.cfs_period_us")
    else:
        quota, period = number("cpu.max"), number("cpu.max", 1)
    if quota <= 0 or period <= 0:  # version 1 has -1 for no quota; int("max") of version 2 raises ValueError
        raise ValueError(folder)
    return _Quota(quota / period, used_seconds)


def _after_fork() -> None:
    global _is_forked
    _is_forked = "torch" in sys.modules
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
