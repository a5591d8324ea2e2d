"""Find the device with a given name, and describe the devices that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt.config import check_device
from softprompt.errors import DeviceError, describe_error
from softprompt.system.devices import CpuUsage, DeviceFacts, cpu_device, gpu_state

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """Return the device with this name. "auto" prefers the first CUDA device, then MPS, then the CPU.

    Raises:
        DeviceError: this machine has no such device.
    """
    check_device(name)
    import torch  # 2 to 4 s, so a wrong name is found first

    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if name == "auto":
        return torch.device("cuda:0" if counts["cuda"] else "mps" if counts["mps"] else "cpu")
    kind, _, index = name.partition(":")
    if counts[kind] > int(index or 0):
        return torch.device(f"cuda:{index or 0}" if kind == "cuda" else kind)
    available = [f"{kind}:{i}" if kind == "cuda" else kind for kind, count in counts.items() for i in range(count)]
    raise DeviceError(f"this machine has no device {name!r}. Use {', '.join(available)}.")


def list_devices(usage: CpuUsage | None = None) -> list[DeviceFacts]:
    """Return the devices that can train, the one of "auto" first. Imports torch, but opens no CUDA context.

    Without NVML, the free memory is known only of a GPU that this process already uses, because asking CUDA would open
    a context.

    Args:
        usage: measures how busy the CPU is.
    """
    import torch

    devices = [_describe_gpu(index) for index in range(torch.cuda.device_count())]
    cpu = cpu_device(usage.read() if usage else None)
    if torch.backends.mps.is_available():
        devices.append(DeviceFacts("mps", "Apple GPU", cpu.total_bytes, cpu.free_bytes))
    return [*devices, cpu]


def _describe_gpu(index: int) -> DeviceFacts:
    import torch

    name = f"cuda:{index}"
    try:
        properties = torch.cuda.get_device_properties(index)
        state = gpu_state(str(getattr(properties, "uuid", "")))
        if state is not None:
            return DeviceFacts(name, properties.name, state.total_bytes, state.free_bytes, state.utilization)
        free = torch.cuda.mem_get_info(index)[0] if torch.cuda.memory_reserved(index) else None
        return DeviceFacts(name, properties.name, properties.total_memory, free)
    except RuntimeError as error:  # the device has failed, or the driver is broken
        return DeviceFacts(name, f"does not work: {describe_error(error)}")
