"""Find the device with a given name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt.config import check_device
from softprompt.errors import DeviceError

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
