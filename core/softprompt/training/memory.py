"""Whether a training run fits into memory."""

from __future__ import annotations

import torch

from softprompt.objectives.base import Objective
from softprompt.system.devices import cpu_device
from softprompt.training.errors import TrainingFailed

SURE_SHARE = 0.5  # of `row_bytes`, which is an upper bound: SmolLM2 takes .6 of it


def free_bytes(device: torch.device) -> int | None:
    """Return the free memory of a device, or None if the system does not tell."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return cpu_device().free_bytes


def check_memory(device: torch.device, objective: Objective, rows: int) -> None:
    """Raise TrainingFailed if this many rows surely do not fit into the device's free memory."""
    needed, free = rows * objective.row_bytes * SURE_SHARE, free_bytes(device)
    if free is not None and needed > free:
        raise TrainingFailed(
            f"training needs at least {needed / 1e9:,.1f} GB beside the model, but {device} has {free / 1e9:,.1f} GB "
            "of free memory. Close other programs, use fewer restarts or soft tokens, or choose a smaller model."
        )
