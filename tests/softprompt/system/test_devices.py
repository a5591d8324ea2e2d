"""The devices of this machine: the CPU from the operating system, NVIDIA's GPUs from NVML."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pynvml
import pytest

from softprompt.encoders.devices import list_devices
from softprompt.system import devices
from softprompt.system.devices import CpuUsage, DeviceFacts, cpu_device, gpu_state

GIB = 1 << 30


def test_the_last_device_is_the_cpu_with_its_memory() -> None:
    cpu = list_devices()[-1]
    assert cpu.name == "cpu"
    assert cpu.total_bytes is not None
    assert cpu.free_bytes is not None
    assert 0 < cpu.free_bytes < cpu.total_bytes <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert DeviceFacts.from_dict(cpu.as_dict()) == cpu


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GiB, of which 48 are free. The test writes its other files."""
    (tmp_path / "meminfo").write_text(f"MemTotal: {64 << 20} kB\nMemFree: 1 kB\nMemAvailable: {48 << 20} kB\n")
    for name, file in (("MEMORY", "meminfo"), ("PROCESSORS", "cpuinfo"), ("TIMES", "stat"), ("CONTAINER", "")):
        monkeypatch.setattr(devices, name, tmp_path / file)
    return tmp_path


@pytest.mark.parametrize(
    ("limit", "used", "expected"),
    [
        ("max", "5", (64, 48)),
        (f"{16 * GIB}", f"{6 * GIB}", (16, 10)),
        (f"{60 * GIB}", f"{2 * GIB}", (60, 48)),
        (f"{16 * GIB}", f"{17 * GIB}", (16, 0)),
        ("nonsense", "", (64, 48)),
    ],
)
def test_a_container_limits_the_memory(machine: Path, limit: str, used: str, expected: tuple[int, int]) -> None:
    (machine / "memory.max").write_text(limit)
    (machine / "memory.current").write_text(used)
    cpu = cpu_device()
    assert (cpu.total_bytes, cpu.free_bytes) == (expected[0] * GIB, expected[1] * GIB)


def test_usage_is_the_busy_share_since_the_last_reading(machine: Path) -> None:
    (machine / "stat").write_text("cpu  100 0 0 100 0 0 0 0\n")
    usage = CpuUsage()
    readings = []
    for times in ("150 0 0 150 0 0 0 0", "200 0 50 150 0 0 0 0", "200 0 50 150 0 0 0 0", "damaged"):
        (machine / "stat").write_text(f"cpu  {times}\n")
        readings.append(usage.read())
    assert readings == [0.5, 1.0, None, None]


def test_without_a_driver_nvml_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    assert gpu_state("GPU-1") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert gpu_state("GPU-1") is None


def test_a_gpu_is_found_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA_VISIBLE_DEVICES changes the numbers of CUDA, but not those of NVML."""
    memory = SimpleNamespace(total=24 * GIB, free=20 * GIB, used=4 * GIB)
    has_rates = True

    def rates(handle: str) -> SimpleNamespace:
        if not has_rates:  # as for a part of a divided GPU
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return SimpleNamespace(gpu=87, memory=3)

    fake = ModuleType("pynvml")
    vars(fake).update(
        NVMLError=pynvml.NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID={"GPU-ab-cd": "handle"}.__getitem__,
        nvmlDeviceGetMemoryInfo={"handle": memory}.__getitem__,
        nvmlDeviceGetUtilizationRates=rates,
    )
    assert all(callable(getattr(pynvml, name)) for name in vars(fake) if name.startswith("nvml"))
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    for uuid in ("ab-cd", "GPU-ab-cd"):
        assert gpu_state(uuid) == (24 * GIB, 20 * GIB, 0.87)
    has_rates = False
    assert gpu_state("ab-cd") == (24 * GIB, 20 * GIB, None)
