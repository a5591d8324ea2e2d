"""CUDA graphs: a step's kernels recorded once and launched as one, for GPUs on which a small step is all launching.

Off unless SOFTPROMPT_CUDA_GRAPHS=1: it has not been measured on a GPU yet. Recording needs a step
that reads nothing of the host and puts nothing at a new place, which a pool's step does not; a test replays steps that way on the cpu.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import torch

VARIABLE = "SOFTPROMPT_CUDA_GRAPHS"


def graphs_for(device: torch.device) -> Graphs | None:
    """The recorder for a batch on this device, or None if steps are not to be recorded."""
    wanted = os.environ.get(VARIABLE, "") not in ("", "0")
    return Graphs(device) if wanted and device.type == "cuda" else None


class Recording(Protocol):
    """A recorded step."""

    def replay(self) -> None: ...


class Graphs:
    """Steps by their turn: the first of a turn runs as it is, which warms it up, the second is recorded, and from then on it is replayed."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._warm: set[int] = set()
        self._recorded: dict[int, Recording] = {}

    def forget(self) -> None:
        """What was recorded is of no use once rows came or left."""
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
