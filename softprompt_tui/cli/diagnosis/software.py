"""The program, the system, torch and its devices, and the packages."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from softprompt.errors import shorten
from softprompt.system.devices import DeviceFacts
from softprompt.worker.client import SAFE_PATH_FLAGS
from softprompt_tui import PROGRAM
from softprompt_tui.cli.diagnosis.fact import Fact, wrong

TORCH_SECONDS = 60.0  # importing torch and open_clip takes 5 to 20 s
PACKAGES = (
    "torchvision", "open_clip_torch", "textual", "safetensors", "huggingface_hub", "transformers",
    "numpy", "nvidia-ml-py",
)  # fmt: skip
OPTIONAL = {"transformers": "SigLIP, CLIPA and worldwide models", "nvidia-ml-py": "the free memory of a GPU"}
PCI = Path("/sys/bus/pci/devices")
NVIDIA_VENDOR, DISPLAY_CLASSES = "0x10de", ("0x0300", "0x0302")
REPORT_COMMAND = (sys.executable, *SAFE_PATH_FLAGS, "softprompt.bench.torch_report")
REINSTALL = "Install torch and torchvision in one command, from pytorch.org's page for your system."


def find_program() -> Iterable[Fact]:
    program, python = _version(PROGRAM), platform.python_version()
    values = {"version": program, "python": python}
    yield Fact("program", f"{PROGRAM} {program}, Python {python}, in {sys.prefix}", values=values)
    kernel, machine = f"{platform.system()} {platform.release()}", platform.machine()
    distribution = kernel.split()[0]
    with suppress(OSError):  # not Linux, or a very small container
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME", distribution)
    container = ", in a container" if any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv")) else ""
    yield Fact(
        "system", f"{distribution}, {kernel} {machine}{container}", values={"os": distribution, "kernel": kernel}
    )


def find_packages() -> Iterable[Fact]:
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, number in versions.items() if not number]
    present = "  ".join(f"{name}=={number}" for name, number in versions.items() if number)
    yield Fact("packages", present, values=versions)
    if required := [name for name in missing if name not in OPTIONAL]:
        yield wrong("packages", f"missing: {', '.join(required)}", f"Run pip install --force-reinstall {PROGRAM}.")
    if optional := [f"{name}, for {OPTIONAL[name]}" for name in missing if name in OPTIONAL]:
        yield Fact("optional", f"not installed: {'; '.join(optional)}")


def find_torch() -> Iterable[Fact]:
    """Ask a process of its own, because importing torch can crash or hang."""
    try:
        result = subprocess.run(
            REPORT_COMMAND,
            capture_output=True, stdin=subprocess.DEVNULL, timeout=TORCH_SECONDS,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        yield wrong("torch", f"{_version('torch')} was not imported within {TORCH_SECONDS:.0f} s", REINSTALL)
        return
    try:
        found = json.loads(result.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        yield wrong("torch", f"{_version('torch')} crashed: {_describe_end(result)}", REINSTALL)
        return
    yield from _describe_torch(found)
    yield from map(_describe_device, found["devices"])


def _describe_end(result: subprocess.CompletedProcess[bytes]) -> str:
    lines = result.stderr.decode(errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "it printed nothing")
    return f"exit code {result.returncode}, {shorten(last, 120)}"


def _describe_torch(found: dict[str, Any]) -> Iterator[Fact]:
    if found["torch_error"]:
        yield wrong("torch", f"{_version('torch')} cannot be imported: {found['torch_error']}", REINSTALL)
        return
    values = {key: found[key] for key in ("version", "cuda", "rocm", "threads", "instructions")}
    build = f"CUDA {found['cuda']}" if found["cuda"] else f"ROCm {found['rocm']}" if found["rocm"] else "CPU"
    text = f"{found['version']}, a {build} build, {found['threads']} threads, {found['instructions']}"
    has_gpu = any(device["name"] != "cpu" for device in found["devices"])
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if has_gpu or not has_nvidia_gpu():
        yield Fact("torch", text if has_gpu else f"{text}; no GPU was found", values=values)
    elif build == "CPU":
        yield wrong("torch", f"{text}, so it cannot use this machine's NVIDIA GPU", REINSTALL, values)
    elif hidden is not None:
        advice = "Unset CUDA_VISIBLE_DEVICES, or set it to 0."
        yield wrong("torch", f"{text}; CUDA_VISIBLE_DEVICES={hidden} hides the GPU", advice, values)
    else:
        advice = "Install or update NVIDIA's driver; `nvidia-smi` must list the GPU."
        yield wrong("torch", f"{text}; cannot use the GPU: {found['cuda_error'] or 'no reason given'}", advice, values)
    if found["open_clip_error"]:
        yield Fact("open_clip", found["open_clip_error"], "wrong")


def _describe_device(values: dict[str, Any]) -> Fact:
    device = DeviceFacts.from_dict(values)
    free = "" if device.free_bytes is None else f", {device.free_bytes / 1e9:.1f} GB free"
    total = "" if device.total_bytes is None else f", {device.total_bytes / 1e9:.1f} GB"
    used = "" if device.utilization is None else f", {device.utilization:.0%} busy"
    broken = device.total_bytes is None and device.name != "cpu"
    advice = f"`{PROGRAM} doctor --device {device.name}` tests it; a restart of the machine often helps."
    text = f"{device.label}{total}{free}{used}"
    return wrong(device.name, text, advice, values) if broken else Fact(device.name, text, values=values)


def has_nvidia_gpu() -> bool:
    """Return whether an NVIDIA GPU is plugged in, with or without a driver."""
    with suppress(OSError):
        for device in PCI.iterdir():
            with suppress(OSError):
                is_nvidia = (device / "vendor").read_text().strip() == NVIDIA_VENDOR
                if is_nvidia and (device / "class").read_text().startswith(DISPLAY_CLASSES):
                    return True
    return Path("/dev/nvidia0").exists()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
    except (OSError, ValueError):  # damaged metadata
        return "of an unknown version"
