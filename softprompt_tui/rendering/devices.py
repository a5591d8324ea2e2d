"""Describe a device in one line."""

from __future__ import annotations

from softprompt.system.devices import DeviceFacts


def describe_device(device: DeviceFacts) -> str:
    """Return what a device is and its memory, such as "NVIDIA H200, 120 of 141 GB free"."""
    return ", ".join(filter(None, (device.label, format_memory(device))))


def format_memory(device: DeviceFacts) -> str:
    """Return the free and the total memory in GB, as far as they are known."""
    if device.total_bytes is None:
        return ""
    total = f"{device.total_bytes / 1e9:.0f} GB"
    return total if device.free_bytes is None else f"{device.free_bytes / 1e9:.0f} of {total} free"


def describe_load(device: DeviceFacts) -> str:
    """Return what the title line shows while a device trains, such as "cuda:0 NVIDIA H200 21/141 GB 87 %"."""
    parts = [device.name] if device.name == "cpu" else [device.name, device.label]
    if device.total_bytes is not None and device.free_bytes is not None:
        used = device.total_bytes - device.free_bytes
        parts.append(f"{used / 1e9:.0f}/{device.total_bytes / 1e9:.0f} GB")
    if device.utilization is not None:
        parts.append(f"{device.utilization:.0%}".replace("%", " %"))
    return " ".join(parts)
