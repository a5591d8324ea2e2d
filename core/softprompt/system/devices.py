"""Describe this machine's devices as the operating system and NVIDIA's NVML report them. Imports no torch.

NVML opens no CUDA context, which would take 300 to 500 MB of the GPU's memory in every process that asks.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from softprompt.system.threads import cores

MEMORY, PROCESSORS, TIMES = Path("/proc/meminfo"), Path("/proc/cpuinfo"), Path("/proc/stat")
CONTAINER = Path("/sys/fs/cgroup")  # in a container, the limits of the container
CPU = "cpu"


@dataclass(frozen=True)
class DeviceFacts:
    """A device that can train.

    Attributes:
        name: as in the device setting: "cpu", "cuda:0" or "mps".
        label: what it is, such as "NVIDIA H200" or "AMD EPYC 9654, 16 cores".
        total_bytes, free_bytes: its memory, or None if unknown.
        utilization: the share of the recent time that it was busy, 0 to 1, or None if unknown.
    """

    name: str
    label: str
    total_bytes: int | None = None
    free_bytes: int | None = None
    utilization: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DeviceFacts:
        """Create facts from the values of `as_dict`. Raises KeyError, TypeError or ValueError for invalid values."""
        total, free, used = (values.get(name) for name in ("total_bytes", "free_bytes", "utilization"))
        return cls(
            str(values["name"]), str(values["label"]), None if total is None else int(total),
            None if free is None else int(free), None if used is None else min(1.0, max(0.0, float(used))),
        )  # fmt: skip


class GpuState(NamedTuple):
    """The state of a GPU, from NVML. `utilization` is None if NVML does not report it, as for a part of a MIG GPU."""

    total_bytes: int
    free_bytes: int
    utilization: float | None


def gpu_state(uuid: str) -> GpuState | None:
    """Return the state of the NVIDIA GPU with this UUID, or None without nvidia-ml-py, its driver or this GPU.

    A GPU is found by its UUID, because CUDA_VISIBLE_DEVICES changes CUDA's numbers, but not NVML's.
    """
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        utilization = None
        with suppress(pynvml.NVMLError):
            utilization = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        return GpuState(int(memory.total), int(memory.free), utilization)
    except (pynvml.NVMLError, OSError):
        return None


def cpu_name() -> str:
    """Return the name of the processor."""
    with suppress(OSError, StopIteration):
        lines = PROCESSORS.read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def cpu_device(utilization: float | None = None) -> DeviceFacts:
    """Return the facts about the CPU and the memory that this process can use."""
    count = cores()
    label = f"{cpu_name()}, {count} core{'s' * (count != 1)}"
    return DeviceFacts(CPU, label, *_memory(), utilization=utilization)


def _memory() -> tuple[int | None, int | None]:
    """Return the total and the free memory in bytes, within the limit of the container."""
    total = free = None
    with suppress(OSError, ValueError, IndexError):
        lines = (line.split(":") for line in MEMORY.read_text().splitlines())
        sizes = {name: int(rest.split()[0]) * 1024 for name, rest in lines}
        total, free = sizes.get("MemTotal"), sizes.get("MemAvailable")
    if total is None:
        with suppress(OSError, ValueError, AttributeError):  # not Linux
            total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # "max" means no limit
        limit, used = (int((CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        if total is None or limit < total:
            return limit, min(max(0, limit - used), limit if free is None else free)
    return total, free


class CpuUsage:
    """Measures the share of time that the CPU was busy since the last reading, or since this was created."""

    def __init__(self) -> None:
        self._busy = self._total = 0
        self.read()

    def read(self) -> float | None:
        """Return the share, 0 to 1, or None where the system does not tell."""
        try:
            times = [int(text) for text in TIMES.read_text().splitlines()[0].split()[1:9]]
            total, busy = sum(times), sum(times) - times[3] - times[4]  # without idle time and waiting for disks
        except (OSError, ValueError, IndexError):
            return None
        before, self._busy, self._total = (self._busy, self._total), busy, total
        passed = total - before[1]
        return min(1.0, max(0.0, (busy - before[0]) / passed)) if before[1] and passed > 0 else None
