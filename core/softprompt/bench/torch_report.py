"""Describe torch and its devices, and whether open_clip can be imported: `python -m softprompt.bench.torch_report`.

This runs in a process of its own, because a broken driver or a library that does not fit can crash or hang at import.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

from softprompt.errors import SoftPromptError, describe_error_with_type
from softprompt.system.devices import cpu_device


def describe_torch() -> dict[str, Any]:
    """Return the facts as JSON values. A key that ends in `_error` gives the reason for what does not work, or ""."""
    try:
        import torch
    except Exception as error:  # whatever a broken installation raises
        return {"torch_error": describe_error_with_type(error), "devices": [cpu_device().as_dict()]}
    return {
        "torch_error": "",
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "rocm": torch.version.hip,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cuda_error": _cuda_error(),
        "open_clip_error": _open_clip_error(),
        "devices": _devices(),
    }


def _cuda_error() -> str:
    """Return why a CUDA build cannot use a GPU, or ""."""
    import torch

    if torch.version.cuda is None or torch.cuda.device_count():
        return ""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except Exception as error:  # the driver is missing, too old or broken
        return describe_error_with_type(error)
    return ""


def _open_clip_error() -> str:
    from softprompt.encoders.catalog import check_open_clip

    try:
        check_open_clip()
    except SoftPromptError as error:
        return str(error)
    return ""


def _devices() -> list[dict[str, Any]]:
    """Return the devices. Ask CUDA for free memory that NVML does not report: this process may open a context."""
    import torch

    from softprompt.encoders.devices import list_devices

    devices = []
    for device in list_devices():
        if device.name.startswith("cuda") and device.free_bytes is None:
            with suppress(RuntimeError):
                device = replace(device, free_bytes=torch.cuda.mem_get_info(device.name)[0])
        devices.append(device.as_dict())
    return devices


if __name__ == "__main__":
    print(json.dumps(describe_torch()))  # noqa: T201  # the process's answer
