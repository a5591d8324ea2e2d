"""The caller's settings of torch and the other programs on the machine: neither disturbs a run, nor the reverse."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import softprompt
from softprompt import HardConfig, Library, SoftPrompt
from softprompt.composition.composer import compose, encode_compositions, encode_hidden_states, score_compositions
from softprompt.config import TrainConfig
from softprompt.discrete import find_hard
from softprompt.encoders.clip import mini
from softprompt.encoders.clip.text_encoder import TextEncoder
from softprompt.evaluation.fidelity import grade
from softprompt.evaluation.readout import read_out
from softprompt.jobs.checkpoint import from_bytes, to_bytes
from softprompt.objectives.hard_prompt import tokenize_prompt
from softprompt.system import threads
from softprompt.system.generators import drive
from softprompt.training import trainer
from softprompt.training.task import TrainingState, TrainingTask
from softprompt.training.trainer import iter_train, sweep, train, train_many
from tests.conftest import BOAT, FOX
from tests.kept import train_cached

SHORT: dict[str, Any] = {"tokens": 2, "steps": 4, "contexts": ("a photo of {}", "{} at night")}
needs_two_cores = pytest.mark.skipif(threads.cores() < 2, reason="a run uses at most as many threads as cores")


class FunctionMode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("a mode of the caller takes part")


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("a mode of the caller takes part")


@contextmanager
def grad_disabled() -> Iterator[None]:
    torch.set_grad_enabled(False)
    yield
    torch.set_grad_enabled(True)


@contextmanager
def default_dtype() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@contextmanager
def default_device() -> Iterator[None]:
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "set_grad_enabled": grad_disabled,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "default dtype": default_dtype,
    "default device": default_device,
    "function mode": FunctionMode,
    "dispatch mode": DispatchMode,
}


def settings_of_torch() -> tuple[object, ...]:
    """Return what a caller can have set in torch, and the state of its random numbers."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_default_dtype(),
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch.get_num_threads(),
        torch.initial_seed(),
    )


def bits(value: Any) -> Any:
    """Return a value with the bytes of its tensors and arrays, to be compared."""
    if isinstance(value, SoftPrompt):
        return bits((value.vectors, value.losses, value.similarities, value.target, value.similarity, value.readout))
    if isinstance(value, list | tuple):
        return [bits(item) for item in value]
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    return value.tobytes() if isinstance(value, np.ndarray) else value


def run_iter_train(encoder: TextEncoder) -> Any:
    before, seen = settings_of_torch(), []
    training = iter_train(encoder, FOX, interval=1, restarts=2, init="vocabulary", **SHORT)
    try:
        while True:
            report = next(training)
            assert settings_of_torch() == before
            seen += [report.vectors, *(tensor for _, tensor in sorted(report.state().tensors.items()))]
    except StopIteration as finished:
        return [seen, finished.value]


def run_train_many(encoder: TextEncoder) -> Any:
    tasks = [TrainingTask(text, TrainConfig(**SHORT)) for text in (FOX, BOAT)]
    results = []
    for _, outcome in train_many(encoder, tasks):
        results += [settings_of_torch(), outcome]
    assert {results[0], results[2]} == {settings_of_torch()}
    return results[1::2]


def run_compose(encoder: TextEncoder) -> Any:
    library = Library()
    for name, text in (("fox", FOX), ("boat", BOAT)):
        library.save(train_cached(encoder, text, **SHORT), name=name)
    composed = compose(encoder, ["a [fox] at night", "[fox*.3 + boat*.7]"], library.open)
    embeddings = encode_compositions(encoder, composed)
    scores = [(score.fidelity, score.floor) for score in score_compositions(encoder, composed, embeddings)]
    return [embeddings, encode_hidden_states(encoder, composed, "sd1"), scores]


def vectors(encoder: TextEncoder) -> Any:
    return train_cached(encoder, FOX, **SHORT).vectors


CALLS: dict[str, Callable[[TextEncoder], Any]] = {
    "train": lambda encoder: train(encoder, FOX, **SHORT),
    "train with hidden states": lambda encoder: train(encoder, FOX, objective="mixed", **SHORT),
    "iter_train": run_iter_train,
    "train_many": run_train_many,
    "sweep": lambda encoder: drive(sweep(encoder, FOX, (1, 3), TrainConfig(**SHORT))),
    "encode": lambda encoder: encoder.encode([FOX, BOAT]),
    "grade": lambda encoder: grade(encoder, tokenize_prompt(encoder, FOX, "refuse"), vectors(encoder))[0],
    "read_out": lambda encoder: read_out(encoder, vectors(encoder)),
    "find_hard": lambda encoder: (
        find_hard(encoder, tokenize_prompt(encoder, FOX, "refuse"), 2, HardConfig(steps=1, restarts=2)).text
    ),
    "compose": run_compose,
}


def fresh(encoder: TextEncoder) -> TextEncoder:
    """Return an encoder with the same weights and without anything computed."""
    return TextEncoder(encoder.name, encoder.tower, encoder.tokenizer, encoder.specials)


@pytest.fixture(scope="module")
def plain(encoder: TextEncoder, cached_typeable: None) -> Callable[[str], Any]:
    """Return a function that runs one of CALLS with torch's usual settings, once for all tests."""
    return cache(lambda name: bits(CALLS[name](fresh(encoder))))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_the_callers_settings_change_no_bit_and_stay_as_they_are(
    encoder: TextEncoder, plain: Callable[[str], Any], call: str, setting: str
) -> None:
    vectors(encoder)
    expected, usual, random = plain(call), settings_of_torch(), torch.get_rng_state()
    with SETTINGS[setting]():
        before = settings_of_torch()
        assert before != usual or setting == "default device"
        result = CALLS[call](fresh(encoder))
        assert settings_of_torch() == before
    assert bits(result) == expected
    assert settings_of_torch() == usual
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("setting", SETTINGS)
def test_an_encoder_can_be_loaded_under_any_settings(
    encoder: TextEncoder, plain: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setattr(mini, "load_mini", mini.load_mini.__wrapped__)  # type: ignore[attr-defined]  # without the tests' cache
    with SETTINGS[setting]():
        loaded = softprompt.load_encoder("mini", "cpu")
    assert bits(train(loaded, FOX, **SHORT)) == plain("train")


# threads


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that sets the number of threads of runs that start, whatever the machine is doing."""

    def choose(count: int) -> None:
        monkeypatch.setattr(trainer, "choose_threads", lambda _limit, _work: count)

    return choose


THREADED: dict[str, Any] = {"tokens": 3, "steps": 12}  # its bits depend on the number of threads


@needs_two_cores
def test_a_run_records_its_number_of_threads_and_gives_other_bits_with_another(
    encoder: TextEncoder, chosen: Callable[[int], None]
) -> None:
    results = []
    for count in (1, 2):
        chosen(count)
        results.append([(report, report.state()) for report in iter_train(encoder, FOX, **THREADED)])
        assert [state.threads for _, state in results[-1]] == [count] * 2
    assert bits(results[0][-1][0].vectors) != bits(results[1][-1][0].vectors)


@needs_two_cores
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", ["one", "auto", "many"])
def test_a_resumed_run_keeps_its_number_of_threads(
    encoder: TextEncoder, chosen: Callable[[int], None], two_threads: None, count: int, kind: str
) -> None:
    settings = THREADED | ({"tokens": "auto", "stop_at": 0.93} if kind == "auto" else {})

    def resumed(state: TrainingState) -> Any:
        if kind != "many":
            return train(encoder, FOX, resume=state, **settings)
        ((_, outcome),) = train_many(encoder, [TrainingTask(FOX, TrainConfig(**settings), resume=state)])
        return outcome

    chosen(count)
    states: list[TrainingState] = []
    uninterrupted = train(encoder, FOX, interval=5, on_report=lambda report: states.append(report.state()), **settings)
    saved = from_bytes(to_bytes(states[0]), "checkpoint")
    other = 3 - count
    chosen(other)
    torch.set_num_threads(other)
    assert bits(resumed(saved)) == bits(uninterrupted)
    assert torch.get_num_threads() == other


def test_a_state_of_an_older_version_continues_with_the_callers_number(
    encoder: TextEncoder, chosen: Callable[[int], None]
) -> None:
    chosen(7)
    state = TrainingState(**(vars(next(iter_train(encoder, FOX, interval=2, **SHORT)).state()) | {"threads": 0}))
    assert next(iter_train(encoder, FOX, interval=2, resume=state, **SHORT)).state().threads == torch.get_num_threads()


def test_runs_in_several_threads_of_a_process_leave_each_thread_its_number(
    encoder: TextEncoder, chosen: Callable[[int], None], two_threads: None
) -> None:
    chosen(1)
    begin, seen = threading.Barrier(4), []

    def run() -> None:
        begin.wait()
        reports = iter_train(encoder, FOX, interval=1, **SHORT)
        seen.append([*(torch.get_num_threads() for _ in reports), torch.get_num_threads()])

    workers = [threading.Thread(target=run) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    later = threading.Thread(target=lambda: seen.append([torch.get_num_threads()]))
    later.start()
    later.join()
    assert seen == [[2] * 5] * 4 + [[2]]
    assert torch.get_num_threads() == 2


LARGE = threads.WORK_PER_SPINNING_THREAD * 64


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Return a function that pretends a machine of 8 cores, and returns its cgroup folder."""
    monkeypatch.setattr(threads, "PROC", tmp_path / "proc")
    monkeypatch.setattr(threads, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(threads, "SAMPLE_SECONDS", 0.005)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def pretend(runnable: int, affinity: int = 8, cgroup: str = "0::/") -> Path:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/loadavg").write_text(f"0.00 0.00 0.00 {runnable}/200 1\n")
        (tmp_path / "proc/self/cgroup").write_text(f"{cgroup}\n")
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(affinity)))
        return tmp_path / "cgroup"

    return pretend


@pytest.mark.parametrize(("runnable", "free"), [(1, 8), (2, 7), (5, 4), (8, 1), (40, 1)])
def test_a_run_uses_the_cores_that_nothing_else_uses(machine: Callable[..., Path], runnable: int, free: int) -> None:
    machine(runnable)
    assert threads.choose_threads(64, LARGE) == free


def test_the_callers_number_is_an_upper_bound(machine: Callable[..., Path]) -> None:
    machine(1)
    assert [threads.choose_threads(limit, LARGE) for limit in (1, 2, 5)] == [1, 2, 5]


def test_a_small_step_gets_fewer_threads_and_still_fewer_if_threads_spin(
    machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(1)
    work = 5 * threads.WORK_PER_THREAD // 2
    monkeypatch.setenv(threads.SPIN_VARIABLE, "8000")
    assert [threads.choose_threads(8, size) for size in (0, work, LARGE)] == [1, 2, 8]
    monkeypatch.delenv(threads.SPIN_VARIABLE)
    monkeypatch.setattr(threads, "_spin_is_limited", False)
    assert [threads.choose_threads(8, size) for size in (0, work, LARGE)] == [1, 1, 8]


def test_runs_of_the_same_process_count(machine: Callable[..., Path]) -> None:
    """Python threads that wait for the interpreter's lock are not runnable, so the kernel does not count them."""
    machine(1)
    is_running, is_chosen = threading.Event(), threading.Event()

    def run() -> None:
        with threads.running(5):
            is_running.set()
            is_chosen.wait(10)

    other = threading.Thread(target=run)
    other.start()
    is_running.wait(10)
    with threads.running(2):  # this thread's own
        beside = threads.choose_threads(8, LARGE)
    is_chosen.set()
    other.join()
    assert (beside, threads.choose_threads(8, LARGE)) == (3, 8)


@pytest.mark.parametrize(
    ("cgroup", "files"),
    [
        ("0::/", {"cpu.max": "300000 100000", "cpu.stat": "usage_usec 5"}),
        ("0::/a/b", {"a/cpu.max": "300000 100000", "a/cpu.stat": "usage_usec 5", "a/b/cpu.max": "max 100000"}),
        ("0::/../of/the/host", {"cpu.max": "300000 100000"}),
        ("4:cpu,cpuacct:/a", {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_quota_us": "30", "cpu/cpu.cfs_period_us": "10"}),
    ],
)
def test_a_quota_of_the_cgroup_limits_the_cores(
    machine: Callable[..., Path], cgroup: str, files: dict[str, str]
) -> None:
    folder = machine(1, cgroup=cgroup)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")
    assert (threads.cores(), threads.choose_threads(8, LARGE)) == (3, 3)


def test_other_programs_of_the_same_cgroup_and_on_the_same_cores_count(
    machine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    used = iter([0.0, 1000.0] * 2)
    monkeypatch.setattr(threads, "_affinity_seconds", lambda: next(used))
    machine(1, affinity=4)
    assert threads.choose_threads(8, LARGE) == 1
    monkeypatch.setattr(threads, "_affinity_seconds", lambda: 0.0)
    assert threads.choose_threads(8, LARGE) == 4
    quota = threads._Quota(4.0, lambda: next(used))
    monkeypatch.setattr(threads, "_quotas", lambda: islice([quota], 1))
    assert threads.choose_threads(8, LARGE) == 1


@pytest.mark.parametrize("text", ["", "nonsense\n", "0.1 0.2 0.3 many/few 1\n"])
def test_a_machine_that_tells_nothing_is_no_error(machine: Callable[..., Path], text: str) -> None:
    machine(1, cgroup="nonsense")
    (threads.PROC / "loadavg").write_text(text)
    assert 1 <= threads.choose_threads(8, LARGE) <= 8
    (threads.PROC / "loadavg").unlink()
    assert 1 <= threads.choose_threads(8, LARGE) <= 8


def test_the_spin_is_limited_without_a_trace_and_a_forked_pool_can_compute() -> None:
    """OpenMP's threads do not exist in a forked process, so more than one thread would wait for them forever."""
    script = """
        import multiprocessing, os, softprompt
        encoder = softprompt.load_encoder("mini", "cpu")
        assert "GOMP_SPINCOUNT" not in os.environ
        import torch
        torch.set_num_threads(2)
        torch.rand(2000, 2000) @ torch.rand(2000, 2000)  # starts OpenMP's threads

        def run(text):
            return softprompt.train(encoder, text, tokens=3, steps=3).loss, encoder.encode(["a fox"]).shape[0]

        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map_async(run, ["a red fox", "a blue boat"]).get(60))
    """
    environment = {key: value for key, value in os.environ.items() if key != threads.SPIN_VARIABLE}
    result = subprocess.run(
        [sys.executable, "-c", "if 1:" + script],
        env=environment | {"OMP_NUM_THREADS": "2", "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    if sys.platform == "linux":
        assert f"GOMP_SPINCOUNT = '{threads.SPIN_COUNT}'" in result.stderr
