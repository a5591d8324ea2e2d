"""CUDA graphs: record a training step once and replay it as one launch. On a GPU a small step is mostly launch time.

Off unless SOFTPROMPT_CUDA_GRAPHS=1, because the gain has not been measured on a GPU yet. A recorded step must not read
anything from the host, and its tensors must keep their addresses. TrainingBatch meets both conditions (a test checks
this on the CPU).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import torch

VARIABLE = "SOFTPROMPT_CUDA_GRAPHS"


def graphs_for(device: torch.device) -> StepGraphs | None:
    """Return a recorder for batches on this device, or None if recording is off."""
    enabled = os.environ.get(VARIABLE, "") not in ("", "0")
    return StepGraphs(device) if enabled and device.type == "cuda" else None


class Recording(Protocol):
    """A recorded step."""

    def replay(self) -> None: ...


class StepGraphs:
    """One recorded step per turn. A turn's first step is a normal warm-up; its second is recorded and then replayed."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._warm: set[int] = set()
        self._recorded: dict[int, Recording] = {}

    def clear(self) -> None:
        """Discard all recordings. They become invalid when rows are added or removed."""
        self._warm.clear()
        self._recorded.clear()

    def run(self, turn: int, step: Callable[[], None]) -> None:
        if turn not in self._warm:
            self._warm.add(turn)
            step()
            return
        if turn not in self._recorded:
            self._recorded[turn] = self._record(step)
        self._recorded[turn].replay()

    def _record(self, step: Callable[[], None]) -> Recording:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize(self.device)
        with torch.cuda.device(self.device), torch.cuda.graph(graph):
            step()
        return graph
