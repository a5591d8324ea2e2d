"""Check that training works on a device, and measure its speed, in at most two minutes.

    for result in DeviceCheck("cuda:0").run():
        print(result.name, result.state, result.text)

The checks use `mini`, which comes with the package, and random weights: nothing is downloaded and nothing is saved.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch

from softprompt.bench.machine import synchronize, time_in_turns
from softprompt.bench.random_towers import random_encoder
from softprompt.bench.speed import TrainingStep
from softprompt.config import MAX_RESTARTS, MAX_STEPS, TrainConfig
from softprompt.encoders.catalog import MINI
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.encoders.devices import list_devices, pick_device
from softprompt.encoders.loading import load_encoder
from softprompt.encoders.torch_settings import neutral_torch
from softprompt.errors import SoftPromptError, describe_error_with_type
from softprompt.evaluation.fidelity import grade
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.prompts.soft_prompt import SoftPrompt
from softprompt.system.devices import cpu_device
from softprompt.training.cuda_graphs import VARIABLE as GRAPHS_VARIABLE
from softprompt.training.cuda_graphs import graphs_for
from softprompt.training.errors import TrainingFailed
from softprompt.training.trainer import train

MAX_SECONDS = 100.0  # no check starts later, so that the command ends within two minutes
PROMPTS = (
    "image of serene landscape at sunrise with trees mountains and lake",
    "a red fox asleep in deep snow under tall pine trees at dusk",
)
CONFIG = TrainConfig(tokens=3, steps=150)  # in contexts, as people train
SHORT_CONFIG = TrainConfig(tokens=3, steps=60, contexts=())

# Training forgets small differences: on the CPU, start vectors that differ by 1e-4 of their length end with
# similarities that differ by 1e-7. So a larger difference than this is not rounding.
FLOAT32_TOLERANCE = 1e-4
# bfloat16 keeps 8 bits of a number, whatever the device. On the CPU, the vectors that it trains are 4e-5 further from
# the prompt than those of float32, both measured in float32. Devices add up in different orders.
BFLOAT16_TOLERANCE = 1e-3
# A recorded step launches the same kernels, but cuBLAS may choose another one with the same result while it records.
RECORDED_TOLERANCE = 1e-5
SPARE_BYTES = 64 << 20  # memory that the check of a full device leaves; 256 restarts of `mini` need over 1 GB
SPEED_SECONDS = 2.0  # for each measurement
TOGETHER, CPU_TOGETHER = 64, 8  # prompts in one batch; more take too long on a CPU
SHAPE, SHAPE_BYTES = "ViT-L-14", 3 << 30  # float32 weights of the text tower take 0.5 GB, twice while they are made

State = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class CheckResult:
    """The result of one check. `text` gives its figures, or why it failed or was skipped."""

    name: str
    state: State
    text: str
    seconds: float
    figures: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Measured(NamedTuple):
    """What a check found."""

    is_good: bool
    text: str
    figures: dict[str, float]


class Skipped(Exception):
    """A check that does not apply to this device. The message gives the reason."""


class TimeOver(Exception):
    """A training was stopped because the time limit for all checks passed, or because another training failed."""


class DeviceCheck:
    """The checks of one device. Checks that can disturb the driver come last.

    Raises:
        DeviceError: this machine has no such device.
    """

    def __init__(self, device: str, seconds: float = MAX_SECONDS) -> None:
        self.device = pick_device(device)
        self.seconds = seconds
        self.deadline = float("inf")
        self._is_ending = threading.Event()  # set to end trainings in other threads

    def describe(self) -> str:
        """Return the device's name, what it is, its memory, and the version of torch."""
        facts = next((device for device in list_devices() if device.name == str(self.device)), None)
        memory = f", {facts.total_bytes / 1e9:.1f} GB" if facts and facts.total_bytes else ""
        return f"{self.device}, {facts.label if facts else 'unknown'}{memory}; torch {torch.__version__}"

    def run(self, on_start: Callable[[str], object] = lambda _: None) -> Iterator[CheckResult]:
        """Yield one result after another. A check that fails does not end the others.

        Args:
            on_start: called with the name of each check before it starts.
        """
        self.deadline = time.perf_counter() + self.seconds
        checks: tuple[tuple[str, Callable[[], Measured]], ...] = (
            ("float32", self._check_float32),
            ("bfloat16", self._check_bfloat16),
            ("two at once", self._check_two_at_once),
            ("speed", self._check_speed),
            (SHAPE, self._check_large_speed),
            ("recorded", self._check_recorded_steps),
            ("memory", self._check_out_of_memory),
        )
        for name, check in checks:
            on_start(name)
            started_at = time.perf_counter()
            state, text, figures = self._run_one(check)
            yield CheckResult(name, state, text, time.perf_counter() - started_at, figures)

    def _run_one(self, check: Callable[[], Measured]) -> tuple[State, str, dict[str, float]]:
        if time.perf_counter() > self.deadline:
            return "skipped", f"the time limit of {self.seconds:.0f} s for all checks has passed", {}
        try:
            measured = check()
        except Skipped as reason:
            return "skipped", str(reason), {}
        except TimeOver:
            return "failed", f"not finished within the time limit of {self.seconds:.0f} s for all checks", {}
        except Exception as error:  # of any type: a broken driver can fail anywhere, and the other checks may tell why
            text = str(error) if isinstance(error, SoftPromptError) else describe_error_with_type(error)
            return "failed", text, {}
        finally:
            with suppress(RuntimeError):  # the device is lost, as the result says
                torch.cuda.empty_cache()
        return "passed" if measured.is_good else "failed", measured.text, measured.figures

    # what the checks share

    @cached_property
    def encoder(self) -> TextEncoder:
        return load_encoder(MINI, str(self.device))

    @cached_property
    def cpu_encoder(self) -> TextEncoder:
        return load_encoder(MINI, "cpu")

    @cached_property
    def trained(self) -> SoftPrompt:
        """The first prompt, trained on the device in float32. Several checks compare with it."""
        return self._train(self.encoder)

    def _train(self, encoder: TextEncoder, config: TrainConfig | None = None, text: str = PROMPTS[0]) -> SoftPrompt:
        def is_over(_: object) -> bool:
            return self._is_ending.is_set() or time.perf_counter() > self.deadline

        prompt = train(encoder, text, config or CONFIG, on_report=is_over, interval=5)
        if prompt.stopped == "interrupted":
            raise TimeOver
        return prompt

    def _require_cuda(self, reason: str) -> None:
        if self.device.type != "cuda":
            raise Skipped(reason)

    # the checks

    def _check_float32(self) -> Measured:
        """Compare with the CPU: run the same training on it, and measure the device's vectors on it."""
        with neutral_torch(1):  # on the CPU, one thread gives the same bits at any load
            reference = self._train(self.cpu_encoder)
            trained = self.trained
        similarity = _similarity(trained)
        if self.device.type == "cpu":
            is_same = trained.vectors.tobytes() == reference.vectors.tobytes()
            bits = "the same bits" if is_same else "different bits, which should be identical"
            return Measured(is_same, f"similarity {similarity:.5f}; two runs gave {bits}", {"similarity": similarity})
        measured_there = _measure(self.cpu_encoder, trained)
        apart = max(abs(similarity - _similarity(reference)), abs(similarity - measured_there))
        return Measured(
            apart <= FLOAT32_TOLERANCE,
            f"similarity {similarity:.5f}; {apart:.0e} from the CPU's, at most {FLOAT32_TOLERANCE:.0e}",
            {"similarity": similarity, "cpu_similarity": _similarity(reference), "apart": apart},
        )

    def _check_bfloat16(self) -> Measured:
        """Compare the vectors that bfloat16 trains with those of float32. Both are measured in float32."""
        full = _similarity(self._train(self.encoder, SHORT_CONFIG))
        half = self._train(load_encoder(MINI, str(self.device), "bfloat16"), SHORT_CONFIG)
        similarity = _measure(self.encoder, half)
        lost = max(0.0, full - similarity)
        return Measured(
            lost <= BFLOAT16_TOLERANCE,
            f"similarity {lost:.0e} below float32's, at most {BFLOAT16_TOLERANCE:.0e}",
            {"similarity": similarity, "float32_similarity": full, "lost": lost},
        )

    def _check_two_at_once(self) -> Measured:
        """Train two prompts one after the other, then at the same time in two threads."""
        self._train(self.encoder, replace(CONFIG, steps=2))  # loads the device's libraries
        started_at = time.perf_counter()
        alone = [self._train(self.encoder, CONFIG, text) for text in PROMPTS]
        alone_seconds = time.perf_counter() - started_at
        started_at = time.perf_counter()
        together = self._train_together()
        seconds = time.perf_counter() - started_at
        apart = max(abs(_similarity(a) - _similarity(b)) for a, b in zip(alone, together, strict=True))
        return Measured(
            apart <= FLOAT32_TOLERANCE,
            f"{_describe_gap(apart)} one after the other, {seconds / alone_seconds:.2f} of the time",
            {"apart": apart, "alone_seconds": alone_seconds, "together_seconds": seconds},
        )

    def _train_together(self) -> list[SoftPrompt]:
        with ThreadPoolExecutor(len(PROMPTS)) as pool:
            try:
                trainings = [pool.submit(self._train, self.encoder, CONFIG, text) for text in PROMPTS]
                return [training.result() for training in trainings]
            except BaseException:  # also Ctrl-C, after which the pool would wait for the trainings
                self._is_ending.set()
                raise

    def _check_speed(self) -> Measured:
        prompts = CPU_TOGETHER if self.device.type == "cpu" else TOGETHER
        one, many = (self._steps_per_second(self.encoder, count) for count in (1, prompts))
        return Measured(
            True,
            f"mini: {one:.0f} steps/s, and {many:.0f} with a batch of {prompts}",
            {"steps_per_second": one, "batch": prompts, "batch_steps_per_second": many},
        )

    def _check_large_speed(self) -> Measured:
        """Measure with random weights in the shape of a real model. On a GPU, measure bfloat16 too."""
        if self.device.type == "cpu":
            free = cpu_device().free_bytes
            if free is not None and free < SHAPE_BYTES:
                raise Skipped(f"it needs {SHAPE_BYTES / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
        figures = {}
        for precision in ("float32",) if self.device.type == "cpu" else ("float32", "bfloat16"):
            encoder = random_encoder(SHAPE, str(self.device), precision)
            figures[precision] = self._steps_per_second(encoder, 1)
            del encoder
        speeds = ", ".join(f"{speed:.1f} steps/s in {precision}" for precision, speed in figures.items())
        return Measured(True, f"random weights: {speeds}", figures)

    def _steps_per_second(self, encoder: TextEncoder, prompts: int) -> float:
        with neutral_torch():
            step = TrainingStep(encoder, [PROMPTS[i % len(PROMPTS)] for i in range(prompts)], _endless(CONFIG))
            return 1 / time_in_turns({"step": step}, SPEED_SECONDS, self.device)["step"]

    def _check_recorded_steps(self) -> Measured:
        """Train with steps that are recorded as CUDA graphs, and compare every step with the plain ones."""
        self._require_cuda("only a CUDA device records steps as CUDA graphs")
        with _variable(GRAPHS_VARIABLE, ""):
            plain = self._train(self.encoder)
        with _variable(GRAPHS_VARIABLE, "1"):
            if graphs_for(self.device) is None:
                return Measured(False, f"{GRAPHS_VARIABLE}=1 does not record anything", {})
            recorded = self._train(self.encoder)
        synchronize(self.device)
        apart = float(abs(plain.similarities - recorded.similarities).max())
        ratio = recorded.steps_per_second / plain.steps_per_second
        return Measured(
            apart <= RECORDED_TOLERANCE,
            f"{_describe_gap(apart)} plain steps, {ratio:.2f} times as fast",
            {"apart": apart, "speed_ratio": ratio},
        )

    def _check_out_of_memory(self) -> Measured:
        """Fill the memory that this process may use, then train again.

        A limit for this process fails like a full device, and takes no memory from other programs on it.
        """
        self._require_cuda("only a CUDA device has memory that can be limited")
        before = self.trained
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(self.device).total_memory
        limit = (torch.cuda.memory_reserved(self.device) + SPARE_BYTES) / total
        torch.cuda.set_per_process_memory_fraction(min(1.0, limit), self.device)
        try:
            self._train(self.encoder, replace(CONFIG, restarts=MAX_RESTARTS))
            return Measured(False, f"{MAX_RESTARTS} restarts fit into {SPARE_BYTES >> 20} MB, which is impossible", {})
        except TrainingFailed as error:
            message = str(error)  # without the error, whose traceback keeps the tensors
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)
        torch.cuda.empty_cache()
        if "out of memory" not in message:
            return Measured(False, f"a batch that does not fit failed with another error: {message}", {})
        apart = abs(_similarity(self._train(self.encoder)) - _similarity(before))
        return Measured(
            apart <= FLOAT32_TOLERANCE,
            f"out of memory: a one-line error; the next training is {_describe_gap(apart)} the one before",
            {"apart": apart},
        )


def _describe_gap(apart: float) -> str:
    """Return the start of a comparison: "1e-07 from" or "the same as". The caller adds the other side."""
    return f"{apart:.0e} from" if apart else "the same as"


def _similarity(prompt: SoftPrompt) -> float:
    assert prompt.similarity is not None  # training sets it
    return prompt.similarity


def _measure(encoder: TextEncoder, prompt: SoftPrompt) -> float:
    """Return the similarity of a soft prompt as another encoder measures it."""
    return grade(encoder, tokenize_prompt(encoder, prompt.hard_prompt, "refuse"), prompt.vectors, ())[0]


def _endless(config: TrainConfig) -> TrainConfig:
    """Return the settings with so many steps that no measurement reaches the last one."""
    return replace(config, steps=MAX_STEPS)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable, and restore it afterwards."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
