"""The test of a device: on this machine's CPU, and on a pretended GPU that can be broken in every way it looks for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from softprompt.bench import device_check
from softprompt.bench.device_check import CheckResult, DeviceCheck
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.errors import DeviceError
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.training import batch
from softprompt.training.cuda_graphs import VARIABLE, StepGraphs
from softprompt.training.optimizer import BatchedAdam

NAMES = ["float32", "bfloat16", "two at once", "speed", "ViT-L-14", "recorded", "memory"]
GPU = torch.device("cuda:0")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, encoder: TextEncoder) -> None:
    """Train few steps, and measure with a small model in place of a real one's shape."""
    monkeypatch.setattr(device_check, "CONFIG", replace(device_check.CONFIG, steps=12, contexts=()))
    monkeypatch.setattr(device_check, "SHORT_CONFIG", replace(device_check.SHORT_CONFIG, steps=6))
    monkeypatch.setattr(device_check, "SPEED_SECONDS", 0.01)
    monkeypatch.setattr(device_check, "TOGETHER", 2)
    monkeypatch.setattr(device_check, "CPU_TOGETHER", 2)
    monkeypatch.setattr(device_check, "random_encoder", lambda *_: encoder)


def results_of(check: DeviceCheck) -> dict[str, CheckResult]:
    return {result.name: result for result in check.run()}


@dataclass
class PretendedGpu:
    """A GPU whose work the CPU does. `limit` is the share of its memory that this process may use."""

    limit: float = 1.0
    record: Callable[[Callable[[], None]], Callable[[], None]] = lambda step: step


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, encoder: TextEncoder) -> PretendedGpu:
    pretended = PretendedGpu()
    add_rows = BatchedAdam.add_rows

    def add_rows_if_they_fit(self: BatchedAdam, *args: Any) -> None:
        if pretended.limit < 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has …")
        add_rows(self, *args)

    monkeypatch.setattr(device_check, "pick_device", lambda _: GPU)
    monkeypatch.setattr(device_check, "load_encoder", lambda *_: encoder)  # a CPU takes long in bfloat16
    monkeypatch.setattr(BatchedAdam, "add_rows", add_rows_if_they_fit)
    monkeypatch.setattr(batch, "graphs_for", lambda _: StepGraphs(GPU) if os.environ.get(VARIABLE) == "1" else None)
    monkeypatch.setattr(StepGraphs, "_record", lambda _, step: SimpleNamespace(replay=pretended.record(step)))
    for name, value in {
        "synchronize": None,
        "empty_cache": None,
        "memory_reserved": 0,
        "get_device_properties": SimpleNamespace(total_memory=1 << 37),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, _: setattr(pretended, "limit", share)
    )
    return pretended


def test_a_cpu_passes_and_skips_what_only_a_gpu_has() -> None:
    results = results_of(DeviceCheck("cpu"))
    assert list(results) == NAMES
    skipped = {name: result.text for name, result in results.items() if result.state == "skipped"}
    assert set(skipped) == {"recorded", "memory"}
    assert all("only a CUDA device" in text for text in skipped.values())
    assert {result.state for name, result in results.items() if name not in skipped} == {"passed"}
    assert "two runs gave the same bits" in results["float32"].text
    assert results["speed"].figures["steps_per_second"] > 0
    assert all("\n" not in result.text and len(result.text) < 80 for result in results.values())


def test_a_gpu_passes_every_check(gpu: PretendedGpu) -> None:
    results = results_of(DeviceCheck("cuda:0"))
    assert {name: result.state for name, result in results.items()} == dict.fromkeys(NAMES, "passed"), results
    assert "from the CPU's, at most 1e-04" in results["float32"].text
    assert "the same as plain steps" in results["recorded"].text
    assert results["memory"].text == "out of memory: a one-line error; the next training is the same as the one before"
    assert gpu.limit == 1.0
    assert VARIABLE not in os.environ


def test_each_fault_of_a_gpu_fails_its_own_check_and_no_other(
    gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replay takes two steps, memory stays full once it was, and a large model meets an unknown error."""

    def fail(*_: Any) -> None:
        raise ValueError("a driver that nobody has seen\nwith more lines")

    def record_twice(step: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            step()
            step()

        return replay

    gpu.record = record_twice
    monkeypatch.setattr(device_check, "random_encoder", fail)
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, _: setattr(gpu, "limit", min(share, gpu.limit))
    )
    results = results_of(DeviceCheck("cuda:0"))
    failed = {name: result.text for name, result in results.items() if result.state == "failed"}
    assert list(results) == NAMES
    assert set(failed) == {"recorded", "memory", "ViT-L-14"}
    assert "from plain steps" in failed["recorded"]
    assert "is out of memory" in failed["memory"]
    assert failed["ViT-L-14"] == "ValueError: a driver that nobody has seen"


def test_a_device_that_computes_something_else_fails(gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    train, calls = device_check.train, []

    def train_slightly_off(*args: Any, **settings: Any) -> SoftPrompt:
        prompt = train(*args, **settings)
        calls.append(prompt)
        assert prompt.similarity is not None
        return replace(prompt, similarity=prompt.similarity - 2e-4) if len(calls) == 2 else prompt

    monkeypatch.setattr(device_check, "train", train_slightly_off)
    result = next(DeviceCheck("cuda:0").run())
    assert (result.name, result.state) == ("float32", "failed")
    assert "2e-04 from the CPU's, at most 1e-04" in result.text


def test_checks_that_cannot_begin_in_time_are_skipped_and_the_one_that_trains_is_stopped() -> None:
    assert {result.state for result in DeviceCheck("cpu", seconds=-1).run()} == {"skipped"}
    check = DeviceCheck("cpu")
    results = check.run(on_start=lambda _: setattr(check, "deadline", time.perf_counter() + 1e-3))
    result = next(results)
    assert (result.state, result.text) == ("failed", "not finished within the time limit of 100 s for all checks")


def test_an_interrupt_ends_the_trainings_in_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_check, "CONFIG", replace(device_check.CONFIG, steps=100_000, contexts=()))
    check = DeviceCheck("cpu")
    check.deadline = float("inf")
    train, count = device_check.train, threading.active_count()

    def interrupt(encoder: TextEncoder, text: str, *args: Any, **settings: Any) -> SoftPrompt:
        if text == device_check.PROMPTS[0]:
            raise KeyboardInterrupt
        return train(encoder, text, *args, **settings)

    monkeypatch.setattr(device_check, "train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        check._train_together()
    assert threading.active_count() == count


def test_a_device_that_does_not_exist_is_refused() -> None:
    with pytest.raises(DeviceError, match="this machine has no device 'cuda:7'"):
        DeviceCheck("cuda:7")
