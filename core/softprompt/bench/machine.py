"""The machine under test: its description, timers that wait for the device, and peak memory."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.system.devices import cpu_name

Call = Callable[[], object]

MATMUL_SIZES = {"cpu": 1024}  # large enough to be limited by arithmetic
MATMUL_SIZE = 8192  # on every other device
BURST_SECONDS = 0.03  # of one call, before it is the next call's turn
MIN_TURNS, MAX_BURST_CALLS = 3, 100
SLOW_SECONDS = 1.0  # a call this slow is not repeated just to size its bursts
STATUS_FILE, CLEAR_REFS_FILE = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Machine:
    """The machine under test. `memory` is the device's, in bytes; `gflops` is the speed of a large matrix product."""

    cpu: str
    cores: int
    threads: int
    torch: str
    device: str
    device_name: str
    memory: int
    model: str
    arithmetic: str
    gflops: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def describe(encoder: TextEncoder, seconds: float = 1.0) -> Machine:
    """Describe this machine for a text encoder. See `describe_machine`."""
    return describe_machine(encoder.name, encoder.device, encoder.tower.table.dtype, encoder.device_label, seconds)


def describe_machine(
    model: str, device: torch.device, dtype: torch.dtype, arithmetic: str, seconds: float = 1.0
) -> Machine:
    """Describe this machine. Times matrix products in the model's precision for `seconds` and uses the median."""
    matmul = Matmul(device, dtype)
    return Machine(
        cpu=cpu_name(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        device=str(device),
        device_name=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else cpu_name()
        if device.type == "cpu"
        else "",
        memory=_memory_bytes(device),
        model=model,
        arithmetic=arithmetic,
        gflops=matmul.flops / time_in_turns({"matmul": matmul}, seconds, device)["matmul"] / 1e9,
    )


class Matmul:
    """A large matrix product. `flops` counts its multiplications and additions."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        n = MATMUL_SIZES.get(device.type, MATMUL_SIZE)
        self.a, self.b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        self.flops = 2.0 * n**3

    def __call__(self) -> object:
        return self.a @ self.b


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def time_in_turns(calls: Mapping[str, Call], seconds: float, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each call. The calls take turns, so that a busy machine slows all of them alike.

    A turn is a burst of timed calls after one untimed call, because the previous call has emptied the caches and
    released memory. As in training, the device is synchronized only at the ends of a burst.
    """
    bursts = {}
    for name, call in calls.items():
        first = _time_calls(call, 1, device)  # includes allocations and other one-time work
        second = _time_calls(call, 1, device) if first < SLOW_SECONDS else first
        bursts[name] = max(1, min(MAX_BURST_CALLS, int(BURST_SECONDS / max(1e-9, second))))
    times: dict[str, list[float]] = {name: [] for name in calls}
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(next(iter(times.values()))) < MIN_TURNS:
        for name, call in calls.items():
            call()
            times[name].append(_time_calls(call, bursts[name], device))
    return {name: median(call_times) for name, call_times in times.items()}


def _time_calls(call: Call, count: int, device: torch.device) -> float:
    """Return the mean seconds of `count` calls."""
    synchronize(device)
    started_at = time.perf_counter()
    for _ in range(count):
        call()
    synchronize(device)
    return (time.perf_counter() - started_at) / count


class PeakMemory:
    """A context manager that measures peak `memory` in bytes: the device's, or on a CPU that of the whole process.

    `memory` stays None if the system does not report it.
    """

    memory: int | None = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> PeakMemory:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _release_freed_memory()
            with suppress(OSError):
                CLEAR_REFS_FILE.write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.memory = torch.cuda.max_memory_allocated(self.device)
        elif self.device.type == "cpu":
            with suppress(OSError, StopIteration):
                line = next(line for line in STATUS_FILE.read_text().splitlines() if line.startswith("VmHWM:"))
                self.memory = int(line.split()[1]) * 1024


def _release_freed_memory() -> None:
    """Make the C library return freed memory to the system: 190 MB after a batch of 64 on `mini`."""
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0
