"""The machine that is measured on, clocks that wait for its device, and its memory."""

from __future__ import annotations

import ctypes
import os
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from softprompt.encoders.clip.text_encoder import TextEncoder

Call = Callable[[], object]

MATMUL_SIZES = {"cpu": 1024}  # large enough to be bound by arithmetic
MATMUL_SIZE = 8192  # on every other device
BURST = 0.03  # seconds that one thing runs before it is the next one's turn
MIN_TURNS, MAX_BURST = 3, 100
SLOW = 1.0  # seconds; what takes longer is not run only to see how long it takes
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Machine:
    """What was measured on. `memory` in bytes is the device's; `gflops` those of a large matrix product, in 1e9 a second."""

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
    """This machine, and how fast it multiplies matrices in the encoder's precision: the median over `seconds`."""
    device = encoder.device
    matmul = Matmul(device, encoder.tower.table.dtype)
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        device=str(device),
        device_name=torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else _cpu()
        if device.type == "cpu"
        else "",
        memory=_memory(device),
        model=encoder.name,
        arithmetic=encoder.device_label,
        gflops=matmul.flops / in_turns({"matmul": matmul}, seconds, device)["matmul"] / 1e9,
    )


class Matmul:
    """A large matrix product; `flops` are its multiplications and additions."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        n = MATMUL_SIZES.get(device.type, MATMUL_SIZE)
        self.a, self.b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
        self.flops = 2.0 * n**3

    def __call__(self) -> object:
        return self.a @ self.b


def synchronise(device: torch.device) -> None:
    """Waits until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def in_turns(calls: Mapping[str, Call], seconds: float, device: torch.device) -> dict[str, float]:
    """Median seconds of one call of each, the calls taking turns so that a busy machine slows all alike.

    A turn is a burst of calls, after one that is not counted: what ran before has emptied the caches and given the memory back. The device
    is waited for at a burst's ends only, as a training does.
    """
    bursts = {}
    for name, call in calls.items():
        first = _timed(call, 1, device)  # with allocations, and what is made at the first call
        again = _timed(call, 1, device) if first < SLOW else first
        bursts[name] = max(1, min(MAX_BURST, int(BURST / max(1e-9, again))))
    found: dict[str, list[float]] = {name: [] for name in calls}
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or len(next(iter(found.values()))) < MIN_TURNS:
        for name, call in calls.items():
            call()
            found[name].append(_timed(call, bursts[name], device))
    return {name: median(times) for name, times in found.items()}


def _timed(call: Call, count: int, device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    for _ in range(count):
        call()
    synchronise(device)
    return (time.perf_counter() - began) / count


class Peak:
    """A context that knows afterwards the most `memory` in bytes that was in use: the device's, or on a cpu the whole process's.

    None where the system does not say.
    """

    memory: int | None = None

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            _give_back()
            with suppress(OSError):
                RESET.write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.memory = torch.cuda.max_memory_allocated(self.device)
        elif self.device.type == "cpu":
            with suppress(OSError, StopIteration):
                line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
                self.memory = int(line.split()[1]) * 1024


def _give_back() -> None:
    """Lets the system have what the C library keeps of memory that was freed: 190 MB after a batch of 64 on `mini`."""
    with suppress(OSError, AttributeError):  # no glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _cpu() -> str:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    with suppress(OSError, ValueError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0
